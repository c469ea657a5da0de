"""The classifier: exact metrics, moving weights, interchangeable checkpoints of compiled and plain runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from src.models.classifier import Classifier
from src.models.metrics import ExampleMean
from src.models.nets.dense import SimpleDenseNet

CLASSES = 3
SGD = partial(torch.optim.SGD, lr=0.1)


def batches(examples: int = 10, batch_size: int = 4) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return a loader whose last batch is smaller than the others, so means over batches would be wrong."""
    generator = torch.Generator().manual_seed(0)
    # rounding in float32 depends on the instruction set of the processor
    images = torch.randn(examples, 1, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (examples,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def classifier(**kwargs: object) -> Classifier:
    """Return a small classifier with the same first weights each time."""
    torch.manual_seed(0)
    net = SimpleDenseNet(input_size=16, lin1_size=8, lin2_size=8, lin3_size=8, output_size=CLASSES)
    model = Classifier(**{"net": net, "num_classes": CLASSES, "optimizer": SGD, **kwargs})  # type: ignore[arg-type]
    return model.double()


def trainer(folder: Path, **kwargs: Any) -> Trainer:
    """Return a trainer that keeps quiet."""
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return Trainer(**{"max_epochs": 1, "default_root_dir": folder, "enable_checkpointing": False, **quiet, **kwargs})


def by_hand(model: Classifier, loader: DataLoader[tuple[torch.Tensor, ...]]) -> tuple[float, float]:
    """Return mean loss and accuracy over all examples at once."""
    images, labels = (torch.cat(column) for column in zip(*loader, strict=True))
    model.eval()
    with torch.no_grad():
        scores = model(images)
    return float(cross_entropy(scores, labels)), float((scores.argmax(1) == labels).float().mean())


def test_validation_and_test_metrics_equal_a_hand_computation(tmp_path: Path) -> None:
    model, loader = classifier(), batches()
    loss, acc = by_hand(model, loader)
    for split, run in (("val", Trainer.validate), ("test", Trainer.test)):
        [metrics] = run(trainer(tmp_path), model, loader, verbose=False)
        assert metrics[f"{split}/loss"] == pytest.approx(loss, abs=1e-6)
        assert metrics[f"{split}/acc"] == pytest.approx(acc, abs=1e-7)


def test_train_metrics_are_the_means_over_the_epochs_examples(tmp_path: Path) -> None:
    # without learning and without batch norm's moving statistics, the epoch's mean is the mean over all examples
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)), CLASSES, partial(torch.optim.SGD, lr=0.0))
    model.double()
    loader = batches()
    fit = trainer(tmp_path)
    fit.fit(model, loader, loader)
    loss, acc = by_hand(model, loader)
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(loss, abs=1e-6)
    assert float(fit.callback_metrics["train/acc"]) == pytest.approx(acc, abs=1e-7)


def test_the_mean_is_exact_over_unequal_batches_in_any_order() -> None:
    mean, reordered = ExampleMean(), ExampleMean()
    values = torch.randn(1_000, generator=torch.Generator().manual_seed(0)) * 1e3
    for batch in torch.split(values, [700, 299, 1]):
        mean.update(batch)
    for batch in torch.split(values.flip(0), 7):
        reordered.update(batch)
    assert mean.compute() == reordered.compute() == values.double().mean().float()
    mean.reset()
    assert (float(mean.total), int(mean.num_examples)) == (0.0, 0)


def test_a_loss_that_is_not_a_number_stays_seen() -> None:
    mean = ExampleMean()
    mean.update(torch.tensor([1.0, 1.0]))
    mean.update(torch.tensor([1.0, float("nan")]))
    assert mean.compute().isnan()


def test_best_accuracy_is_the_highest_seen_and_leaves_the_sanity_check_out(tmp_path: Path) -> None:
    model = classifier()
    seen: list[float] = []
    model.on_train_epoch_end = lambda: seen.append(float(fit.callback_metrics["val/acc"]))  # type: ignore[method-assign]
    fit = trainer(tmp_path, max_epochs=6, num_sanity_val_steps=2)
    fit.fit(model, batches(), batches())
    assert len(seen) == 6
    assert float(fit.callback_metrics["val/acc_best"]) == pytest.approx(max(seen))


def test_a_step_moves_every_weight(tmp_path: Path) -> None:
    model = classifier()
    before = {name: value.clone() for name, value in model.net.named_parameters()}
    trainer(tmp_path, max_steps=1).fit(model, batches(), batches())
    still = [name for name, value in model.net.named_parameters() if torch.equal(value, before[name])]
    # the bias before a batch norm has a gradient of zero up to rounding
    assert [name for name in still if name.endswith("weight")] == []


def test_compiled_and_plain_checkpoints_are_interchangeable() -> None:
    plain, compiled = classifier(), classifier(compile=True)
    backend = "eager"  # the names are what is tested, not the code generator
    compiled.net.compile(backend=backend)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    images = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    compiled.load_state_dict(plain.state_dict())
    assert torch.allclose(compiled.eval()(images), plain.eval()(images), atol=1e-6)


def test_compile_is_asked_for_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    model = classifier(compile=True)
    monkeypatch.setattr(model.net, "compile", lambda: calls.append("compiled"))
    model.setup("test")
    assert calls == []
    model.setup("fit")
    assert calls == ["compiled"]


def test_the_scheduler_is_configured_by_key() -> None:
    step = partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    configured = classifier(
        scheduler=step, scheduler_interval="step", scheduler_frequency=5, scheduler_monitor="val/acc"
    )
    made = cast("dict[str, Any]", configured.configure_optimizers())
    scheduler = made["lr_scheduler"]
    assert isinstance(scheduler["scheduler"], torch.optim.lr_scheduler.StepLR)
    assert (scheduler["interval"], scheduler["frequency"], scheduler["monitor"]) == ("step", 5, "val/acc")
    assert "lr_scheduler" not in classifier(scheduler=None).configure_optimizers()  # type: ignore[operator]


def test_hyperparameters_hold_plain_values_only() -> None:
    hparams = classifier(scheduler_frequency=2).hparams
    assert hparams["scheduler_frequency"] == 2
    assert {type(value) for value in hparams.values()} <= {int, str, bool}
    assert not {"net", "optimizer", "scheduler"} & hparams.keys()


def test_predictions_are_probabilities() -> None:
    images, labels = next(iter(batches()))
    probabilities = classifier().eval().predict_step((images, labels), 0)
    assert probabilities.shape == (4, CLASSES)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(4, dtype=torch.float64))
