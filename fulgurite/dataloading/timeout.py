"""A limit on waiting for a batch: a worker that hangs must not hold a run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from fulgurite.dataloading.patch import change_loaders


class LimitWaiting(Callback):
    """Puts the limit on a run's loaders, in the process that uses them, which may be a spawned one.

    Args:
        seconds: Without a batch, after which a loader with workers gives up; 0 waits for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the loader methods of the data module."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            limit_waiting(datamodule, self.seconds)


def limit_waiting(datamodule: LightningDataModule, seconds: float) -> None:
    """Have every loader with workers that a data module hands out give up on a batch after so many seconds.

    A limit that a loader has of its own stays.

    Args:
        datamodule: As in `change_loaders`.
        seconds: 0 waits for ever.
    """

    def limit(loader: DataLoader[Any]) -> None:
        if loader.num_workers > 0 and not loader.timeout:
            loader.timeout = seconds

    if seconds > 0:
        change_loaders(datamodule, limit, "waits_so_long")
