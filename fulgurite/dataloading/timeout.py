"""Set a timeout on DataLoader workers, so that a worker that hangs cannot block a run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from fulgurite.dataloading.patch import patch_loaders


class WorkerTimeout(Callback):
    """Sets the timeout of a run's loaders in seconds, 0 for none, in the process that uses them: it may be spawned."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the loader methods of the data module."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            set_worker_timeout(datamodule, self.seconds)


def set_worker_timeout(datamodule: LightningDataModule, seconds: float) -> None:
    """Set the timeout of every loader with workers, unless it has one; 0 sets no limit."""

    def set_timeout(loader: DataLoader[Any]) -> None:
        if loader.num_workers > 0 and not loader.timeout:
            loader.timeout = seconds

    if seconds > 0:
        patch_loaders(datamodule, set_timeout, "has_worker_timeout")
