"""Let all ranks apply an edit before the same batch: rank 0 reads, and broadcasts two integers about once a second."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer

MAX_BATCHES = 1000  # between two broadcasts
T = TypeVar("T")


class Ranks:
    """The broadcasts of one training whose process group is there, about `seconds` apart."""

    def __init__(self, trainer: Trainer, seconds: float) -> None:
        self.trainer, self.seconds = trainer, seconds
        self.remaining = self._interval = 1  # batches to the next broadcast, the same on all ranks
        self._shared_at = time.monotonic()

    def share(self, edit: T | None) -> T | None:
        """Return the edit that rank 0 passes, on every rank: one broadcast of two integers where there is none."""
        now, passed = time.monotonic(), self._interval - self.remaining
        interval = self._interval
        if passed > 0:  # else the second broadcast before one batch
            seconds = (now - self._shared_at) / passed
            interval = min(max(int(self.seconds / max(seconds, 1e-9)), 1), MAX_BATCHES)
        head = torch.tensor([edit is not None, interval], dtype=torch.int64, device=self.trainer.strategy.root_device)
        torch.distributed.broadcast(head, src=0)
        has_edit, self.remaining = head.tolist()
        self._interval, self._shared_at = self.remaining, now
        return self.broadcast(edit) if has_edit else None

    def broadcast(self, value: T) -> T:
        """Return what rank 0 passes, on every rank."""
        return self.trainer.strategy.broadcast(value)

    def first_reason(self, reason: str) -> str:
        """Return the reason of the first rank that has one; an empty string where all ranks succeeded."""
        failed = torch.tensor([bool(reason)], dtype=torch.int64, device=self.trainer.strategy.root_device)
        torch.distributed.all_reduce(failed, torch.distributed.ReduceOp.MAX)
        if not failed.item():
            return ""
        reasons: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(reasons, reason)
        return next(f"rank {rank}: {text}" for rank, text in enumerate(reasons) if text)
