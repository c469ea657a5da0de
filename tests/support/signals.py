"""Real commands that get a signal at a chosen place of the run, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.support.cli import read_json
from tests.support.project import ROOT


class SendSignal(Callback):
    """Sends signals at one place of a run.

    Args:
        name: The signal, e.g. `SIGTERM`.
        place: `setup`, `step` (after an optimizer step), `validation` or `test` (before a batch of it).
        at: Optimizer steps done by then; null is any number.
        to: `self`, `parent` or `group`: this process, the one that started it, all of the command.
        rank: The rank that sends.
        sleep: Seconds this place takes from then on, at each of its batches.
        again: Send once more after the sleep.
    """

    def __init__(
        self,
        name: str = "SIGTERM",
        place: str = "step",
        at: int | None = None,
        to: str = "self",
        rank: int = 0,
        sleep: float = 0.0,
        again: bool = False,
    ) -> None:
        self.number = getattr(signal, name)
        self.place, self.at, self.to, self.rank, self.sleep, self.again = place, at, to, rank, sleep, again
        self.sent = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look whether this is the place."""
        self._look("setup", trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look whether this is the place."""
        self._look("step", trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Look whether this is the place."""
        self._look("validation", trainer)

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Look whether this is the place."""
        self._look("test", trainer)

    def _look(self, place: str, trainer: Trainer) -> None:
        if place != self.place or (self.at is not None and trainer.global_step != self.at):
            return
        first, self.sent = not self.sent, True
        if first and trainer.global_rank == self.rank:
            self._send()
        time.sleep(self.sleep)
        if first and self.again:
            self._send()

    def _send(self) -> None:
        if self.to == "group":
            os.killpg(0, self.number)
        else:
            os.kill(os.getpid() if self.to == "self" else os.getppid(), self.number)


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: Its exit code.
        said: Its output, both streams.
        left: Command lines of its processes that still live.
    """

    code: int
    said: str
    left: list[str]


def command(*words: str, folder: Path | None = None, send: str = "", timeout: float = 240) -> End:
    """Run `python src/train.py` in a process group of its own.

    Args:
        words: Overrides and options.
        folder: The run's directory.
        send: Arguments of `SendSignal`, as in YAML.
        timeout: Seconds after which the test fails.
    """
    options = [word for word in words if word.startswith("-")]
    more = ["extras.allowed_targets=[tests]"]
    if send:
        more.append(f"+callbacks.send={{_target_: tests.support.signals.SendSignal, {send}}}")
    if folder is not None:
        more.append(f"hydra.run.dir='{folder}'")
    overrides = [word for word in words if not word.startswith("-")]
    return ended([sys.executable, "src/train.py", *options, *overrides, *more], timeout=timeout)


def ended(words: Sequence[str], *, timeout: float = 240, env: dict[str, str] | None = None) -> End:
    """Run any command in a process group of its own, to its end."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        # to the end of the output: also of processes that outlive the command
        said, _ = process.communicate(timeout=timeout)
        return End(process.returncode, said, members(process.pid))
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(group: int) -> list[str]:
    """Return the command lines of the living processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def record_of(folder: Path) -> tuple[str, str | None, int]:
    """Return status, reason and exit code of a run."""
    record = read_json(folder / "run.json")
    return record["status"], record["reason"], record["exit_code"]


def step_of(folder: Path) -> int:
    """Return the optimizer steps in a run's last checkpoint, by its manifest."""
    return int(read_json(folder / "checkpoints/last.ckpt.json")["step"])
