"""A callback that sleeps, for jobs of known duration."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Sleep(Callback):
    """Sleep when training starts.

    Args:
        seconds: Duration.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sleep."""
        time.sleep(self.seconds)
