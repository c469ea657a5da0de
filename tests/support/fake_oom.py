"""A callback that stands for a device too small for large batches."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class SmallDevice(Callback):
    """Raises what torch raises on a full device.

    Args:
        largest: Examples of the largest batch that has room.
        from_step: Optimizer steps from which on the device is small.
        rank: The only rank it is small on; None means all.
    """

    def __init__(self, largest: int, from_step: int = 0, rank: int | None = None) -> None:
        self.largest, self.from_step, self.rank = largest, from_step, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look at the batch."""
        there = self.rank in {None, trainer.global_rank}
        if there and trainer.global_step >= self.from_step and len(batch[0]) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
