"""Refuse a training that ends without a batch, or whose ranks have unequal numbers of batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden

from fulgurite.compat.lightning import combined_mode, train_loaders
from fulgurite.core.errors import UserError
from fulgurite.dataloading.patch import wrap_method

NOTHING_LEFT = "With train=false and ckpt_path=<file> the run only tests"
LIMITS = ("limit_train_batches", "max_epochs", "max_steps")
NO_EXAMPLES = "num_samples should be a positive integer value"  # of torch's RandomSampler


class RequireBatches(Callback):
    """Callback that refuses a training in which no batch was trained on, and that was not resumed after one.

    It also refuses ranks whose loaders differ in length: their collectives would mismatch, and gloo aborts.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Explain loaders that Lightning or torch reject with an error of their own."""
        datamodule = getattr(trainer, "datamodule", None)
        if (
            stage == "fit"
            and datamodule is not None
            and is_overridden("train_dataloader", datamodule, LightningDataModule)
        ):
            wrap_method(datamodule, "train_dataloader", _explained, "is_explained")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the lengths of the loaders over the ranks."""
        if trainer.world_size > 1:
            length = torch.tensor(float(trainer.num_training_batches), device=trainer.strategy.root_device)
            _require_equal(trainer.strategy.all_gather(length).tolist())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the first epoch of a stream, whose length is unknown."""
        _require_batches(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check a training that Lightning skipped."""
        _require_batches(trainer)


def _require_batches(trainer: Trainer) -> None:
    """Raise an error if no batch was trained on, in this start or an earlier one."""
    if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0:
        raise UserError(f"{_reason(trainer)}. {NOTHING_LEFT}.")


def _require_equal(lengths: list[float]) -> None:
    few, many = min(lengths), max(lengths)
    if few != many:
        raise UserError(
            f"data: the training loader has {few:.0f} batches on rank {lengths.index(few)} and {many:.0f} on rank "
            f"{lengths.index(many)}. Set trainer.limit_train_batches={few:.0f}, or use a DistributedSampler."
        )


def _reason(trainer: Trainer) -> str:
    for name in LIMITS:
        if getattr(trainer, name) == 0:
            return f"trainer.{name}=0: leaves no batch to train on. Raise it"
    lengths = [(loader, _length(loader)) for loader in train_loaders(trainer)]
    if lengths and all(length for _, length in lengths):
        return "trainer: the training was stopped before its first batch. Raise max_time, or check the callbacks"
    empty = [_describe(loader) for loader, length in lengths if length == 0]
    described = f" ({'; '.join(empty)})" if empty else ""
    return f"data: the training loader yields no batch{described}. Check the training set, batch size and drop_last"


def _describe(loader: Any) -> str:
    examples = _length(getattr(loader, "dataset", None))
    size, batches = getattr(loader, "batch_size", None), getattr(loader, "batch_sampler", None)
    drops = getattr(loader, "drop_last", False) or getattr(batches, "drop_last", False)
    size = size or getattr(batches, "batch_size", None)
    return f"{examples or 0} examples" + (f" for a batch of {size}" if size else "") + (", drop_last" if drops else "")


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None


def _explained(make: Callable[[], Any]) -> Any:
    """Return the loaders of a method, or explain why they are rejected."""
    try:
        loaders = make()
    except ValueError as error:
        if not str(error).startswith(NO_EXAMPLES):
            raise
        reason = "data: the training set has no examples. Check its path and filters"
        raise UserError(f"{reason}. {NOTHING_LEFT}.") from error
    if isinstance(loaders, CombinedLoader) and combined_mode(loaders) == "sequential":
        raise UserError(
            'data: Lightning does not train on CombinedLoader(mode="sequential"). '
            "Use a ConcatDataset in one loader, or another mode."
        )
    return loaders
