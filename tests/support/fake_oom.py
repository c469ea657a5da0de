"""Simulate a device whose memory is too small for large batches."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class SmallDevice(Callback):
    """Callback that raises torch's out-of-memory error for large batches.

    Args:
        largest: Largest batch size that does not raise.
        from_step: Optimizer steps before the first error.
        rank: The only rank that raises; None: every rank.
    """

    def __init__(self, largest: int, from_step: int = 0, rank: int | None = None) -> None:
        self.largest, self.from_step, self.rank = largest, from_step, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Raise if the batch is too large."""
        raises = self.rank in {None, trainer.global_rank}
        if raises and trainer.global_step >= self.from_step and len(batch[0]) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
