"""Entries of the gallery: what each one trains, what the book prints, and the range that a result must lie in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Range that a metric is required to lie in.

    Args:
        metric: Column of metrics.csv.
        least: Smallest value. None has no bound.
        most: Largest value. None has no bound.
        pick: `last` takes the last epoch, `max` and `min` the best one, `first` the first one.
    """

    metric: str
    least: float | None = None
    most: float | None = None
    pick: str = "last"

    def value(self, rows: list[dict[str, str]]) -> float:
        """Return the metric of a run from the rows of its metrics.csv."""
        values = [float(row[self.metric]) for row in rows if row.get(self.metric)]
        return {"last": values[-1], "first": values[0], "max": max(values), "min": min(values)}[self.pick]

    def holds(self, value: float) -> bool:
        """Return whether a value lies within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def title(self) -> str:
        """The metric, and which epoch's value counts if that is not the last."""
        return self.metric if self.pick == "last" else f"{'best' if self.pick == 'max' else self.pick} {self.metric}"

    def __str__(self) -> str:
        name = self.title
        if self.least is None and self.most is None:
            return f"{name} (any)"
        if self.least is not None and self.most is not None:
            return f"{name} {self.least:g} to {self.most:g}"
        return f"{name} >= {self.least:g}" if self.least is not None else f"{name} <= {self.most:g}"


@dataclass(frozen=True)
class Entry:
    """One row of the page.

    Args:
        name: Unique; also the folder of its runs.
        title: What is trained.
        section: Of the book.
        overrides: Of the command, after `python src/train.py`.
        book: The number that the book prints.
        bands: Required ranges of the measured numbers.
        seeds: One run each.
        folds: Number of folds of the data. Each fold is a run with seed 0, and the mean over the folds is judged.
        picture: File of the run directory that the page shows.
    """

    name: str
    title: str
    section: str
    overrides: str
    book: str
    bands: tuple[Band, ...]
    seeds: int = 3
    folds: int = 0
    picture: str = ""

    @property
    def command(self) -> str:
        """What to write after `python src/train.py` for all runs of the entry, without their seeds."""
        return (
            f"{self.overrides} -m 'data.fold=range({self.folds})' data.num_folds={self.folds}"
            if self.folds
            else self.overrides
        )

    def runs(self) -> list[str]:
        """Return the overrides that the runs of this entry differ in."""
        if self.folds:
            return [f"seed=0 data.fold={fold} data.num_folds={self.folds}" for fold in range(self.folds)]
        return [f"seed={seed}" for seed in range(self.seeds)]


def _image(name: str, title: str, section: str, book: str, *bands: Band, more: str = "", seeds: int = 3) -> Entry:
    overrides = f"experiment=gallery/{name.partition(':')[0]}{more and ' ' + more}"
    return Entry(name.replace(":", "_"), title, section, overrides, book, bands, seeds)


def _writer(
    name: str, title: str, section: str, book: str, most: float, *, more: str = "", seeds: int = 3, picture: str = ""
) -> Entry:
    """Return a language model on the text of the book, with the largest perplexity that it may end with."""
    overrides = f"experiment=gallery/{name.partition(':')[0]} data=gallery/time_machine{more}"
    bands = (Band("train/perplexity", most=most),)
    book = f"perplexity {book}"
    return Entry(name.replace(":", "_"), title, section, overrides, book, bands, seeds, picture=picture)


def _classifier(
    loss: float, train: float, test: float, *, best: bool = False, least_loss: float | None = None
) -> list[Band]:
    return [
        Band("train/loss", least_loss, loss),
        Band("train/acc", train),
        Band("val/acc", test, pick="max" if best else "last"),
    ]


TWO_EPOCHS = Band("train/acc", 0.87)  # with batch norm, val/acc jumps from epoch to epoch
SLICE = (Band("train/loss"), Band("val/acc"))  # the book has no numbers for a part of a training
ENTRIES = [
    Entry("linear_regression", "linear regression", "3.3", "experiment=gallery/linear_regression", "loss 0.000103",
          (Band("train/loss", most=1.2e-4),)),
    _image("softmax_regression", "softmax regression", "3.7", "0.448 / 0.848 / 0.828",
           *_classifier(0.450, 0.846, 0.80, least_loss=0.445)),
    _image("mlp", "multilayer perceptron", "4.3", "0.382 / 0.865 / 0.838", *_classifier(0.395, 0.860, 0.82, best=True)),
    Entry("polynomial_4", "polynomial, 4 terms", "4.4", "experiment=gallery/polynomial data.source.num_terms=4",
          "val 0.0106", (Band("val/loss", most=0.05),)),
    Entry("polynomial_2", "polynomial, 2 terms: underfits", "4.4",
          "experiment=gallery/polynomial data.source.num_terms=2", "val 15.6", (Band("val/loss", least=2),)),
    Entry("polynomial_20", "polynomial, 20 terms: overfits", "4.4",
          "experiment=gallery/polynomial data.source.num_terms=20 trainer.max_epochs=1500", "val 0.0178",
          (Band("val/loss", most=0.1),)),
    Entry("weight_decay_0", "no weight decay", "4.5", "experiment=gallery/weight_decay model.optimizer.weight_decay=0",
          "norm 13.7, val 209", (Band("train/weight_norm", 12, 15),)),
    Entry("weight_decay_3", "weight decay", "4.5", "experiment=gallery/weight_decay", "norm 0.389, val 0.185",
          (Band("train/weight_norm", 0.33, 0.53),)),
    Entry("house_prices", "house prices, 5 folds", "4.10", "experiment=gallery/house_prices",
          "Kaggle's records: train 0.165, val 0.170", (Band("val/log_rmse", most=0.160),), folds=5),
    _image("mlp_dropout", "perceptron with dropout", "4.6", "0.344 / 0.875 / 0.844",
           *_classifier(0.365, 0.868, 0.835, best=True)),
    _image("lenet", "LeNet", "6.6", "0.469 / 0.823 / 0.779", *_classifier(0.53, 0.80, 0.75)),
    _image("lenet_batch_norm", "LeNet, batch norm", "7.5", "0.267 / 0.902 / 0.708",
           *_classifier(0.285, 0.895, 0.85, best=True)),
    _image("resnet18:cpu", "ResNet-18, two epochs at 32 pixels", "7.6", "96 pixels, GPU: 0.012 / 0.997 / 0.893",
           TWO_EPOCHS, Band("val/acc", 0.80), more="+slice=cpu", seeds=1),
    _image("densenet:cpu", "DenseNet, two epochs at 32 pixels", "7.7", "96 pixels, GPU: 0.140 / 0.948 / 0.885",
           TWO_EPOCHS, Band("val/acc"), more="+slice=cpu", seeds=1),
    _image("vgg11:cpu", "VGG-11, two epochs at 32 pixels", "7.2", "224 pixels, GPU: 0.178 / 0.935 / 0.920",
           *SLICE, more="+slice=cpu", seeds=1),
    _image("googlenet:cpu", "GoogLeNet, two epochs at 32 pixels", "7.4", "96 pixels, GPU: 0.262 / 0.900 / 0.886",
           *SLICE, more="+slice=cpu", seeds=1),
    _image("nin:few_batches", "Network in Network, 4 batches", "7.3", "GPU: 0.563 / 0.786 / 0.790",
           *SLICE, more="+slice=few_batches", seeds=1),
    _image("alexnet:few_batches", "AlexNet, 4 batches", "7.1", "GPU: 0.331 / 0.878 / 0.883",
           *SLICE, more="+slice=few_batches", seeds=1),
    Entry("sine_mlp", "next value of a noisy sine", "8.1", "experiment=gallery/sine_mlp", "train loss 0.0517",
          (Band("train/loss", most=0.08),), picture="pictures/fitted_curve.png"),
    _writer("rnn_scratch", "RNN of 512 units", "8.5", "1.0", 1.2, seeds=1),
    _writer("rnn_scratch:random", "RNN of 512 units, random windows", "8.5", "1.5", 1.6,
            more=" data.order=random model.carry_state=false", seeds=1),
    _writer("rnn", "RNN", "8.6", "1.3", 1.4),
    _writer("gru", "GRU", "9.1", "1.0", 1.3, picture="generated.txt"),
    _writer("lstm", "LSTM", "9.2", "1.1", 1.3),
    _writer("deep_lstm", "LSTM of two layers", "9.3", "1.0", 1.3, seeds=1),
    _writer("bidirectional_lstm", "bidirectional LSTM, which sees what it predicts", "9.4", "1.1", 1.2, seeds=1),
    Entry("seq2seq", "GRU encoder-decoder", "9.7", "experiment=gallery/seq2seq", "loss 0.019",
          (Band("train/loss_book", most=0.021),), picture="translations.txt"),
    Entry("nadaraya_watson", "kernel regression", "10.2", "experiment=gallery/nadaraya_watson", "train loss 0.253",
          (Band("train/loss", most=0.76),), picture="pictures/fitted_curve.png"),
    Entry("bahdanau", "encoder-decoder with attention", "10.4", "experiment=gallery/bahdanau", "loss 0.021",
          (Band("train/loss_book", most=0.023),), picture="pictures/attention.png"),
    Entry("transformer", "Transformer", "10.7", "experiment=gallery/transformer", "loss 0.030",
          (Band("train/loss_book", most=0.035),), picture="pictures/attention.png"),
    *(
        Entry(f"airfoil_{name}", f"optimizer {name}", section, f"experiment=gallery/airfoil optimizer={name}",
              f"loss {book}", (Band("val/loss", most=0.261),))
        for name, section, book in [
            ("sgd", "11.5", "0.243"), ("momentum", "11.6", "0.247"), ("adagrad", "11.7", "0.242"),
            ("rmsprop", "11.8", "0.244"), ("adadelta", "11.9", "0.243"), ("adam", "11.10", "0.254"),
            ("yogi", "11.10", "0.245"),
        ]
    ),
    *(
        _image(f"lenet_modern:{name}", f"schedule {name}", "11.11", book, Band("train/acc", 0.89),
               Band("val/acc", 0.86), more=f"scheduler={name}{more}", seeds=1)
        for name, book, more in [
            ("constant", "0.128 / 0.951 / 0.885", ""),
            ("square_root", "0.270 / 0.901 / 0.876", " model.optimizer.lr=0.1"),
            ("multistep", "0.191 / 0.928 / 0.889", " model.optimizer.lr=0.5"),
            ("cosine", "0.207 / 0.923 / 0.892", ""),
            ("warmup_cosine", "0.261 / 0.904 / 0.878", ""),
        ]
    ),
    _image("resnet18_small_stem:few_batches", "ResNet-18 with a small stem, 4 batches", "12.6", "GPU: val 0.93",
           *SLICE, more="+slice=few_batches", seeds=1),
    _image("lenet_parallel", "wide LeNet, one process", "12.5", "val 0.84", Band("val/acc", 0.75), seeds=1),
    _image("lenet_parallel:ddp", "wide LeNet, two processes", "12.5", "val 0.83", Band("val/acc", 0.75),
           more="trainer=ddp_sim", seeds=1),
    Entry("gan", "generative adversarial net on digits", "17.2", "experiment=gallery/gan", "no number",
          (Band("val/loss_critic"),), seeds=1, picture="pictures/made_images.png"),
    Entry("self_supervised", "self-supervised net with a moving teacher, on digits", "-",
          "experiment=gallery/self_supervised", "not in the book", (Band("val/acc"),), seeds=1),
]  # fmt: skip
ENTRIES.sort(key=lambda entry: [int(part) for part in entry.section.split(".") if part.isdigit()] or [99])
