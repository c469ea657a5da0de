"""A callback that troubles a run once: the same job run again is left alone, as after a cause that has passed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class TroubleOnce(Callback):
    """Does one thing after an optimizer step, if nobody has left word that it was done.

    Args:
        what: By seed: `raise`, `spoil` (weights become NaN), or the name of a signal sent to this process.
        seed: The job's.
        step: Optimizer steps after which it happens.
        marks: Folder in which word is left.
    """

    def __init__(self, what: dict[str, str], seed: int, step: int, marks: str) -> None:
        self.what, self.step, self.mark = what.get(f"s{seed}", ""), step, Path(marks) / str(seed)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave word of which rank has which seed."""
        self.mark.with_name(f"{self.mark.name}-rank{trainer.global_rank}").touch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let it happen."""
        if not self.what or not trainer.is_global_zero or trainer.global_step != self.step or self.mark.exists():
            return
        self.mark.touch()
        if self.what == "spoil":
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(float("nan"))
        elif self.what == "raise":
            raise ValueError("a fault that passes")
        else:
            os.kill(os.getpid(), getattr(signal, self.what))
