"""A callback that does to one rank, at one step, what can happen to it."""

from __future__ import annotations

import os
import signal
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Fault(Callback):
    """Ends, stops or spoils one rank after a step.

    Args:
        what: `raise`, `exit`, or the name of a signal, e.g. `SIGKILL`.
        rank: Which process of the run.
        step: Optimizer steps after which it happens.
    """

    def __init__(self, what: str, rank: int, step: int) -> None:
        self.what, self.rank, self.step = what, rank, step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let it happen."""
        if trainer.global_rank != self.rank or trainer.global_step != self.step:
            return
        if self.what == "raise":
            raise ValueError("a fault of this rank alone")
        if self.what == "exit":
            os._exit(7)
        os.kill(os.getpid(), getattr(signal, self.what))
