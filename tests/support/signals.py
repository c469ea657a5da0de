"""Run real commands, send them a signal at a chosen point, and inspect the result."""

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
    """Callback that sends a signal at one point of a run.

    Args:
        name: The signal, e.g. `SIGTERM`.
        place: `setup`, `step` (after an optimizer step), `validation` or `test` (before a batch of it).
        at: Optimizer steps at which to send; null: the first time at `place`.
        to: `self`, `parent` or `group`: this process, its parent, or the whole process group.
        rank: The rank that sends.
        sleep: Seconds to sleep at each batch at `place` from then on.
        again: Send the signal again after the first sleep.
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
        """Send the signal if `place` matches."""
        self._send_if_due("setup", trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Send the signal if `place` matches."""
        self._send_if_due("step", trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Send the signal if `place` matches."""
        self._send_if_due("validation", trainer)

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Send the signal if `place` matches."""
        self._send_if_due("test", trainer)

    def _send_if_due(self, place: str, trainer: Trainer) -> None:
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
        left: Command lines of its processes that are still running.
    """

    code: int
    said: str
    left: list[str]


def command(*words: str, folder: Path | None = None, send: str = "", timeout: float = 240) -> End:
    """Run `python src/train.py` in a new process group.

    Args:
        words: Overrides and options.
        folder: The run directory.
        send: Arguments of `SendSignal` in YAML.
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
    """Run a command in a new process group, and wait for it."""
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
        # reads until the last process that inherited the pipe exits
        said, _ = process.communicate(timeout=timeout)
        return End(process.returncode, said, members(process.pid))
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def members(group: int) -> list[str]:
    """Return the command lines of the running processes of a group."""
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
    """Return the optimizer steps in the manifest of a run's last checkpoint."""
    return int(read_json(folder / "checkpoints/last.ckpt.json")["step"])
