"""Each checkpoint of a run can be loaded again, whatever the user's classes put into it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import nn

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from tests.support.quiet_trainer import fit_hardened
from tests.support.toy_task import OrdinaryData, OrdinaryModel


class Keeper(OrdinaryModel):
    """Saves all its arguments, as most projects do."""

    def __init__(self, head: nn.Module, optimizer: Callable[..., Any], cfg: DictConfig, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.head = head


class KeeperData(OrdinaryData):
    """Saves an object of its own."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.transform = transform


class Reads(OrdinaryModel):
    """Reads an argument from its hyperparameters, where it has it only."""

    def __init__(self, transforms: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()


class Adds(OrdinaryModel):
    """Adds values to a checkpoint.

    Args:
        values: The values of each save; the last one is repeated.
    """

    def __init__(self, *values: Any) -> None:
        super().__init__()
        self.values, self.loaded = list(values), None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the next value."""
        checkpoint["mine"] = self.values.pop(0) if len(self.values) > 1 else self.values[0]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep it."""
        self.loaded = checkpoint["mine"]


class Holder(Callback):
    """Has an object in its state."""

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return {"vocabulary": object()}


def fit(
    folder: Path,
    model: LightningModule,
    data: LightningDataModule | None = None,
    callbacks: list[Callback] | None = None,
    epochs: int = 1,
    **switches: Any,
) -> Path:
    """Train for two batches an epoch, from the last checkpoint if there is one; return that file."""
    last, data = folder / "last.ckpt", data or OrdinaryData()
    few = {"max_epochs": epochs, "limit_train_batches": 2, "limit_val_batches": 1}
    called = [*(callbacks or []), LastCheckpoint(folder)]
    source = last if last.exists() else None
    fit_hardened(model, data, folder, called, ckpt_path=source, switches=switches, **few)
    return last


@pytest.mark.filterwarnings("ignore:Attribute .* is an instance of `nn.Module`")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_objects_in_hyperparameters_do_not_cost_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    arguments: list[Any] = [nn.Linear(1, 1), partial(torch.optim.Adam, lr=0.1), OmegaConf.create({"a": 1})]
    model = Keeper(*arguments)
    with caplog.at_level(logging.WARNING):
        last = fit(tmp_path, model, KeeperData(nn.ReLU()), async_checkpoints=asynchronous)
    named = [record.getMessage() for record in caplog.records if "hyperparameters" in record.getMessage()]
    reason = "which are objects; load_from_checkpoint needs them as arguments. Write self.save_hyperparameters"
    assert named == [
        f'Keeper: checkpoints leave out the hyperparameters head (Linear), {reason}(ignore=["head"]).',
        f'KeeperData: checkpoints leave out the hyperparameters transform (ReLU), {reason}(ignore=["transform"]).',
    ]
    assert model.hparams["head"] is arguments[0]
    assert current_context().inexact == []
    saved = torch.load(last, weights_only=True)
    assert saved["hyper_parameters"]["cfg"] == {"a": 1}
    assert saved["datamodule_hyper_parameters"] == {}
    fit(tmp_path, Keeper(*arguments), KeeperData(nn.ReLU()), epochs=2, async_checkpoints=asynchronous)
    assert torch.load(last, weights_only=True)["global_step"] == 4
    loaded = Keeper.load_from_checkpoint(last, head=arguments[0], weights_only=True)
    assert loaded.hparams["width"] == 3


def test_a_hyperparameter_that_code_reads_is_not_to_be_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(tmp_path, Reads({"train": object()}))
    (record,) = [record for record in caplog.records if "leave out" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith(
        "transforms (dict), which are objects; load_from_checkpoint needs them as arguments."
    )


def test_numbers_of_numpy_and_paths_are_restored_in_their_types(tmp_path: Path) -> None:
    value = {"loss": np.float32(0.1), "folder": Path("a"), "counts": np.arange(2)}
    last = fit(tmp_path, Adds(value))
    assert torch.load(last, weights_only=True)["mine"]["folder"] == "a"
    resumed = Adds(value)
    fit(tmp_path, resumed, epochs=2)
    assert repr(resumed.loaded) == repr(value)


def refuse(folder: Path, *arguments: Any) -> str:
    """Return why a run is refused; it has saved nothing."""
    with pytest.raises(fulgurite.UserError) as caught:
        fit(folder, *arguments)
    assert not list(folder.rglob("*.ckpt"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_object_ends_a_run_before_its_first_step(tmp_path: Path) -> None:
    model: LightningModule = Adds({"words": [object()]})
    assert "it could not be loaded again with these objects: mine.words.0 (object). Save numbers, text" in refuse(
        tmp_path, model
    )
    assert model.trainer.global_step == 0
    model = OrdinaryModel()
    assert "objects: callbacks.Holder.vocabulary (object)." in refuse(tmp_path, model, None, [Holder()])
    assert model.trainer.global_step == 0


def test_an_object_of_a_scheduler_ends_a_run_before_its_first_step(tmp_path: Path) -> None:
    class Warm(torch.optim.lr_scheduler.LRScheduler):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.inner = torch.optim.lr_scheduler.StepLR(optimizer, 1)  # restored in place
            self.words = object()
            super().__init__(optimizer)

        def get_lr(self) -> list[float | torch.Tensor]:
            return [group["lr"] for group in self.optimizer.param_groups]

    class Model(OrdinaryModel):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [Warm(optimizer)]

    assert "objects: lr_schedulers.0.words (object)." in refuse(tmp_path, Model())


def test_a_hook_that_needs_a_trained_epoch_is_checked_at_the_first_save(tmp_path: Path) -> None:
    class Late(OrdinaryModel):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            if not self.trainer.global_step:
                raise KeyError("val/loss")
            checkpoint["mine"] = object()

    assert "objects: mine (object)." in refuse(tmp_path, Late())


def test_a_later_object_is_left_out_and_named(tmp_path: Path) -> None:
    last = fit(tmp_path, Adds({"a": 1}, {"a": 1, "b": object()}), epochs=2)
    assert torch.load(last, weights_only=True)["mine"] == {"a": 1}
    [line] = current_context().inexact
    assert line.startswith(
        "checkpoint key mine.b: a value of type object is left out, since it could not be loaded again. Save numbers"
    )


def test_the_first_file_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulgurite.checkpoints.content.to_plain", Unconverted)
    with pytest.raises(fulgurite.UserError, match=r"last\.ckpt: this checkpoint cannot be loaded again"):
        fit(tmp_path, Adds(Path("a")))


class Unconverted:
    """What a conversion that misses a type returns."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content, self.rejected = content, dict[str, str]()
