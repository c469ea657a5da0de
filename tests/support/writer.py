"""A callback with an effect: it leaves a file when it is made, set up, or called in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Writer(Callback):
    """Writes the name of each hook to a folder.

    Args:
        folder: Where; it exists.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        (self.folder / "made").touch()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave a file."""
        (self.folder / "setup").touch()

    def on_train_batch_end(self, *_: Any) -> None:
        """Leave a file."""
        (self.folder / "on_train_batch_end").touch()
