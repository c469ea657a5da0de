"""A callback that injects a fault into one rank, and a search for processes that are left."""

from __future__ import annotations

import builtins
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Fault(Callback):
    """Exits, stops or corrupts one rank after a step.

    Args:
        what: `none`, `spoil` (weights become NaN), `exit` (code 7, no reason), `exit 0`, `late`, name of an exception
            or signal.
        rank: Which process of the run.
        step: Optimizer steps after which it happens.

    Under torchrun only the first start is affected.
    """

    def __init__(self, what: str, rank: int = 0, step: int = 2) -> None:
        self.rank, self.step = rank, step
        self.what = what if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" else "none"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Inject the fault."""
        if trainer.global_rank != self.rank or trainer.global_step != self.step or self.what == "none":
            return
        if self.what == "spoil":
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(float("nan"))
        elif self.what in {"exit", "exit 0"}:
            os._exit(7 if self.what == "exit" else 0)
        elif self.what == "late":
            time.sleep(300)
        elif self.what.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.what))
        else:
            raise getattr(builtins, self.what)("a fault of this process alone")


def with_fault(what: str, *, rank: int = 0, step: int = 2) -> tuple[str, str]:
    """Return the overrides that inject a fault."""
    entry = f"+callbacks.fault={{_target_: tests.support.faults.Fault, what: {what}, rank: {rank}, step: {step}}}"
    return entry, "extras.allowed_targets=[tests]"


def processes_with(text: str, *, within: float = 10) -> list[int]:
    """Return the processes whose command line still contains a text after some seconds.

    Args:
        text: Unique to them, e.g. a temporary folder.
        within: Seconds to wait for them to exit.
    """
    end = time.monotonic() + within
    while (found := [pid for pid in _pids() if text in _words(pid)]) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and int(path.name) != os.getpid()]


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")  # empty for one that has ended
    except OSError:
        return ""
