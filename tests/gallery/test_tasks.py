"""The tasks of the gallery compute the loss they state, and learn."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from fulgurite import Run, UserError
from src.gallery.nets.dense import MLP
from src.gallery.nets.recurrent import RecurrentLM
from src.gallery.nets.translation import GRUSeq2Seq
from src.gallery.tasks.language_model import LanguageModel
from src.gallery.tasks.regression import LogRMSE, Regression
from src.gallery.tasks.translation import Translation
from tests.conftest import ComposeSmall
from tests.gallery.files import SAMPLE, write_files
from tests.gallery.test_experiments import fitted


def sgd(params: Any) -> SGD:
    return SGD(params, lr=0.1, weight_decay=3.0)


def test_the_sum_over_slots_of_the_book_ignores_padding() -> None:
    task = Translation(GRUSeq2Seq(9, 9), sgd).eval()
    source, target = torch.randint(4, 9, (2, 5)), torch.randint(4, 9, (2, 5))
    lengths = torch.tensor([2, 5])
    loss = task.training_step((source, lengths, target, lengths), 0)
    begin = torch.full((2, 1), task.bos)
    scores = task.net(source, lengths, torch.cat([begin, target[:, :-1]], dim=1))
    kept = [cross_entropy(scores[row, :size], target[row, :size], reduction="sum") for row, size in enumerate([2, 5])]
    torch.testing.assert_close(loss, sum(kept) / 5)
    torch.testing.assert_close(task.train_loss.compute(), sum(kept) / 7)
    torch.testing.assert_close(task.train_loss_book.compute(), sum(kept) / 35)


def test_a_language_model_carries_its_state_within_an_epoch() -> None:
    task = LanguageModel(RecurrentLM(5, "gru", 8), sgd)
    tokens = torch.randint(5, (2, 12))
    task.on_train_epoch_start()
    with torch.no_grad():
        parts = [task.training_step((tokens[:, at : at + 4], tokens[:, at + 1 : at + 5]), 0) for at in (0, 4)]
        scores, _ = task(tokens[:, :8])
        whole = cross_entropy(scores.flatten(0, 1), tokens[:, 1:9].flatten())
    torch.testing.assert_close(sum(parts) / 2, whole)
    assert not task.state.requires_grad
    task.on_train_epoch_start()
    assert task.state is None


def test_a_text_is_continued_by_its_most_likely_tokens() -> None:
    task = LanguageModel(RecurrentLM(5, "lstm", 8), sgd)
    prefix = torch.tensor([1, 2])
    text = task.generate(prefix, 3)
    for end in range(2, 5):
        assert text[end] == task(text[None, :end])[0][0, -1].argmax()


def test_biases_can_be_left_out_of_weight_decay() -> None:
    task = Regression(MLP(2, 1), sgd, decay_bias=False)
    optimizer: Any = task.configure_optimizers()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [3.0, 0.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


def test_log_rmse_is_that_of_kaggle() -> None:
    metric = LogRMSE()
    metric.update(torch.tensor([[100.0], [-5.0]]), torch.tensor([[50.0], [2.0]]))
    assert metric.compute().item() == pytest.approx(math.sqrt((math.log(2) ** 2 + math.log(2) ** 2) / 2))


LEARNS = {
    # experiment: overrides, metric, largest share of the first epoch's value that the last one has
    "linear_regression": ([], "train/loss", 0.01),
    "polynomial": (["trainer.max_epochs=20"], "train/loss", 0.1),
    "weight_decay": (["trainer.max_epochs=20"], "train/weight_norm", 0.5),
    "sine_mlp": ([], "train/loss", 0.6),
    "nadaraya_watson": ([], "train/loss", 0.8),
    "mlp": ([*SAMPLE, "data.batch_size=32", "trainer.max_epochs=3"], "train/loss", 0.6),
    "lenet_modern": ([*SAMPLE, "data.batch_size=32", "trainer.max_epochs=3"], "train/loss", 0.6),
    "lenet_batch_norm": ([*SAMPLE, "data.batch_size=32", "trainer.max_epochs=3"], "train/loss", 0.6),
    "gru": (["model.net.hidden_size=64", "trainer.max_epochs=60"], "train/perplexity", 0.6),
    "seq2seq": (["data.batch_size=8", "trainer.max_epochs=40", "FILES"], "train/loss", 0.5),
    "bahdanau": (["data.batch_size=8", "trainer.max_epochs=40", "FILES"], "train/loss", 0.5),
    "transformer": (["data.batch_size=8", "trainer.max_epochs=40", "FILES"], "train/loss", 0.5),
    "self_supervised": (["trainer.max_epochs=3"], "train/loss", 0.8),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", LEARNS)
def test_the_loss_falls(experiment: str, small: ComposeSmall, tmp_path: Path) -> None:
    overrides, metric, share = LEARNS[experiment]
    if "FILES" in overrides:
        overrides = [*overrides[:-1], f"data.data_dir={tmp_path}", *write_files("sentences", tmp_path)]
    limits = [f"trainer.limit_{stage}_batches=1.0" for stage in ("train", "val")]
    cfg = small(f"experiment=gallery/{experiment}", "trainer.max_epochs=3", *overrides, *limits)
    values = recorded(fitted(cfg), metric)
    assert values[-1] < share * values[0]


def recorded(run: Run, metric: str) -> list[float]:
    """Return what a run logged of a metric, one value per epoch."""
    with (Path(run.trainer.default_root_dir) / "metrics.csv").open() as file:
        return [float(row[metric]) for row in csv.DictReader(file) if row.get(metric)]


@pytest.mark.slow
def test_an_encoder_learns_features_that_tell_digits_apart(small: ComposeSmall) -> None:
    limits = [f"trainer.limit_{stage}_batches=1.0" for stage in ("train", "val")]
    run = fitted(small("experiment=gallery/self_supervised", "trainer.max_epochs=3", *limits))
    assert recorded(run, "val/acc")[-1] > 0.8  # chance is 0.1


@pytest.mark.slow
def test_a_generator_makes_images_that_resemble_digits(small: ComposeSmall) -> None:
    limits = [f"trainer.limit_{stage}_batches=1.0" for stage in ("train", "val")]
    run = fitted(small("experiment=gallery/gan", "trainer.max_epochs=5", *limits))
    model: Any = run.model
    images = model.eval().generator.sample(64)
    ink = (images > 0).float().mean(dim=(1, 2, 3))  # of the sample's digits: 0.10 on average
    assert 0.04 < ink.mean() < 0.25
    assert images.std(dim=0).mean() > 0.1  # not one image again and again
    assert (Path(run.trainer.default_root_dir) / "pictures/made_images.png").stat().st_size > 1000


def test_a_state_is_not_carried_between_random_windows(small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small("experiment=gallery/gru", "model.net.hidden_size=4", "data.order=random", folder=tmp_path)
    with pytest.raises(UserError, match=r"^model.carry_state=true: random windows do not continue each other."):
        fitted(cfg)
