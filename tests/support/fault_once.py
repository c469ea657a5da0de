"""A callback that injects a fault once: the same job run again succeeds, like after a transient fault."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class FaultOnce(Callback):
    """Injects one fault after an optimizer step, unless its mark file exists.

    Args:
        what: By seed: `raise`, `spoil` (weights become NaN), or the name of a signal sent to this process.
        seed: The job's.
        step: Optimizer steps after which it happens.
        marks: Folder of the mark files.
    """

    def __init__(self, what: dict[str, str], seed: int, step: int, marks: str) -> None:
        self.what, self.step, self.mark = what.get(f"s{seed}", ""), step, Path(marks) / str(seed)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Record which rank has which seed."""
        self.mark.with_name(f"{self.mark.name}-rank{trainer.global_rank}").touch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Inject the fault."""
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
