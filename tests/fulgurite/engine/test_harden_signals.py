"""Test that each stop of a plain script by a signal has a line that says what is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.errors import Interrupted
from fulgurite.shutdown.signals import signal_handler
from tests.support.project import ROOT
from tests.support.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore")
LATE = """
import os, signal, time
import fulgurite
from lightning.pytorch import LightningDataModule, Trainer
trainer = Trainer(accelerator="cpu", logger=False)
fulgurite.harden(trainer, LightningDataModule(), run_dir="run", seed=1, grace_seconds=0.2)

class Slow:
    def __del__(self):
        time.sleep(1)

kept = os.kept = Slow()
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """Get the handlers of this process back."""
    yield
    signal_handler().restore()


class Send(Callback):
    """Sends SIGTERM after an optimizer step, or at the start of a test, then sleeps."""

    def __init__(self, step: int, seconds: float = 0) -> None:
        self.step, self.seconds = step, seconds

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Send it."""
        if trainer.global_step == self.step:
            self._send()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send it."""
        self._send()

    def _send(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.seconds)


def hardened(folder: Path, send: Send, *savers: Callback) -> Trainer:
    """Return a trainer of four steps; its grace period ends only where a step sleeps."""
    trainer = quiet_trainer([send, *savers], max_steps=4, limit_val_batches=0)
    grace = 0.2 if send.seconds else 60
    return fulgurite.harden(trainer, BoringDataModule(), run_dir=folder, seed=1, grace_seconds=grace)


def saver(folder: Path) -> Callback:
    """Return a callback that saves each second step."""
    return LastCheckpoint(folder / "last", every_n_train_steps=2)


def last_line(captured: pytest.CaptureFixture[str]) -> str:
    """Return the last line about the signal."""
    return [line for line in captured.readouterr().err.splitlines() if line.startswith("SIGTERM: ")][-1]


@pytest.mark.parametrize(
    ("send", "line"),
    [
        (Send(3), "saved at step 3 in last/last.ckpt"),
        (Send(3, 30), "not saved within 0.2 s (harden(grace_seconds=...)); last saved at step 2 in last/last.ckpt"),
        (Send(1, 30), "not saved within 0.2 s (harden(grace_seconds=...))"),
    ],
    ids=["at once", "grace period over", "grace period over before the first save"],
)
def test_a_stop_of_a_training_is_reported(
    send: Send, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        hardened(tmp_path, send, saver(tmp_path)).fit(BoringModel(), BoringDataModule())
    assert last_line(capfd) == f"SIGTERM: {line}"


def test_a_stop_without_a_last_checkpoint_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        hardened(tmp_path, Send(3)).fit(BoringModel(), BoringDataModule())
    assert last_line(capfd) == "SIGTERM: nothing saved: the run has no LastCheckpoint"


def test_a_stop_of_a_second_training_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hardened(tmp_path, Send(5), saver(tmp_path)).fit(BoringModel(), BoringDataModule())
    with pytest.raises(Interrupted):
        hardened(tmp_path, Send(1, 30), saver(tmp_path)).fit(BoringModel(), BoringDataModule())
    assert last_line(capfd) == "SIGTERM: not saved within 0.2 s (harden(grace_seconds=...))"


def test_a_stop_of_a_test_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = hardened(tmp_path, Send(5), saver(tmp_path))
    with pytest.raises(Interrupted):
        trainer.test(BoringModel(), BoringDataModule(), verbose=False)
    assert last_line(capfd) == "SIGTERM: stopped outside of training"


def test_a_stop_of_a_test_after_a_training_says_where_that_is_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer = hardened(tmp_path, Send(5), saver(tmp_path))
    trainer.fit(BoringModel(), BoringDataModule())
    with pytest.raises(Interrupted):
        trainer.test(BoringModel(), BoringDataModule(), verbose=False)
    assert last_line(capfd) == "SIGTERM: saved at step 4 in last/last.ckpt"


@pytest.mark.slow
def test_the_grace_period_does_not_kill_a_process_that_exits(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "late.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stderr.endswith("SIGTERM: stopped outside of training\n")
