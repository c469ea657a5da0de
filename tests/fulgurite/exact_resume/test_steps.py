"""State of optimizers, schedulers, weights and metrics that no state_dict has survives a crash within an epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LearningRateFinder

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from tests.support.quiet_trainer import fit_hardened
from tests.support.shapes.callbacks import Backbone, Finetuning, Spikes, UnfreezeAndHalve
from tests.support.shapes.keeping import AssignedData
from tests.support.shapes.loaders import Data
from tests.support.shapes.models import Net
from tests.support.shapes.optimizers import (
    AddsCallback,
    FreeGradients,
    MarkedWeights,
    Metrics,
    OtherClass,
    Scripted,
    StartHook,
    Steps,
)


class Crash(Callback):
    """Raises an error before a batch of an epoch, by default amid the second."""

    def __init__(self, epoch: int = 1, batch: int = 4) -> None:
        self.place = (epoch, batch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.place:
            raise ZeroDivisionError


def train(
    make: Callable[[], Any],
    folder: Path,
    *more: Callback,
    resumes: bool = False,
    data: LightningDataModule | None = None,
    **settings: Any,
) -> LightningModule:
    """Train two epochs of six batches; the last checkpoint holds every second step."""
    seed_everything(1, verbose=False)
    model: LightningModule = make()
    callbacks = [*more, LastCheckpoint(folder, every_n_train_steps=2)]
    last = folder / "last.ckpt" if resumes else None
    few: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 6, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    data = data or Data()
    fit_hardened(model, data, folder, callbacks, ckpt_path=last, log_every_n_steps=1, **few | settings)
    return model


@pytest.mark.parametrize(
    "make",
    [
        *(partial(Steps, kind) for kind in ("types", "attribute", "hook")),
        *(partial(Steps, kind) for kind in ("closure", "object", "nothing saved", "a part saved")),
        *(partial(StartHook, kind) for kind in ("gradient", "attribute")),
        *(partial(Metrics, kind) for kind in ("tracker", "running", "bounds", "own")),
        FreeGradients,
        MarkedWeights,
        Scripted,
    ],
)
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    straight = train(make, tmp_path / "straight")
    with pytest.raises(ZeroDivisionError):
        train(make, tmp_path / "stopped", Crash())
    resumed = train(make, tmp_path / "stopped", resumes=True)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert current_context().inexact == []


@pytest.mark.parametrize(
    ("make", "more", "line"),
    [
        (partial(Steps, "late hook"), [], "optimizer 0 hooks: code changed it from 0 hooks to 1 hooks"),
        (partial(Steps, "replaced"), [], "lr_schedulers: code changed it from StepLR to LambdaLR"),
        (partial(Steps, "plain"), [AddsCallback(removes=False)], "callbacks: code changed it from AddsCallback to"),
        (partial(Steps, "plain"), [AddsCallback(removes=True)], "callbacks: code changed it from AddsCallback to none"),
        (OtherClass, [], "model: code changed it from OtherClass to Tripled"),
    ],
)
def test_another_structure_is_named_once_in_the_epoch_that_has_it(
    make: Callable[[], Any], more: list[Callback], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    train(make, tmp_path, *more)
    found = current_context().inexact
    assert len(found) == 1, json.dumps(found, indent=1)
    assert found[0].startswith(line)


def test_spike_detection_keeps_its_mean_of_the_last_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    spikes = [Spikes() for _ in range(3)]
    make = partial(Steps, "plain")
    train(make, tmp_path / "straight", spikes[0])
    with pytest.raises(ZeroDivisionError):
        train(make, tmp_path / "stopped", spikes[1], Crash())
    train(make, tmp_path / "stopped", spikes[2], resumes=True)
    means = [each.running_mean.compute() for each in (spikes[0], spikes[2])]
    assert torch.equal(*means)
    assert current_context().inexact == []


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")  # of the batch norm
@pytest.mark.parametrize("make", [Finetuning, UnfreezeAndHalve])
def test_a_learning_rate_that_a_finetuning_sets_as_an_epoch_starts_is_set_once(
    make: Callable[[], Callback], tmp_path: Path
) -> None:
    straight = train(Backbone, tmp_path / "straight", make(), max_epochs=3)
    with pytest.raises(ZeroDivisionError):
        train(Backbone, tmp_path / "stopped", make(), Crash(2, 1), max_epochs=3)
    resumed = train(Backbone, tmp_path / "stopped", make(), max_epochs=3, resumes=True)
    rates = [[group["lr"] for group in model.trainer.optimizers[0].param_groups] for model in (straight, resumed)]
    assert rates[0] == rates[1]
    assert all(map(torch.equal, straight.state_dict().values(), resumed.state_dict().values()))


def test_a_loader_method_that_the_library_wraps_is_that_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    settings: dict[str, Any] = {"reload_dataloaders_every_n_epochs": 1}
    straight = train(partial(Steps, "plain"), tmp_path / "straight", data=AssignedData(), **settings)
    with pytest.raises(ZeroDivisionError):
        train(partial(Steps, "plain"), tmp_path / "stopped", Crash(), data=AssignedData(), **settings)
    resumed = train(partial(Steps, "plain"), tmp_path / "stopped", data=AssignedData(), resumes=True, **settings)
    assert all(map(torch.equal, straight.state_dict().values(), resumed.state_dict().values()))
    assert current_context().inexact == []


class OwnFinder(LearningRateFinder):
    """A search of a learning rate, as users write it."""


def test_a_run_that_fitted_twice_names_nothing_that_the_library_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    finder = partial(OwnFinder, num_training_steps=2, early_stop_threshold=None)
    data = Data()
    model = train(Net, tmp_path, finder(), data=data)
    model.trainer.fit_loop.max_epochs = 3
    model.trainer.fit(model, data)
    train(Net, tmp_path, finder(), max_epochs=4, resumes=True)
    assert current_context().inexact == []
