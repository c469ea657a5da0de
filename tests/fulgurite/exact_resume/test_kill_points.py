"""Models that are hard to save, killed at each batch of two epochs: every resume is exact."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import seed_everything

from fulgurite.callbacks import LastCheckpoint
from fulgurite.checkpoints import newest_checkpoint
from tests.support.cli import WARM
from tests.support.quiet_trainer import fit_hardened
from tests.support.shapes.loaders import Data
from tests.support.shapes.models import GAN, ManualAccumulation, Net
from tests.support.shapes.recorder import KILL_AFTER, RECORD, Recorder
from tests.support.shapes.runs import compare
from tests.support.shapes.training import Teacher

BATCHES = 7  # of each epoch
FIRST = 2  # batches after which each of the models has been saved
MODELS = {"teacher": Teacher, "logs each step": Net, "accumulation by hand": ManualAccumulation, "GAN": GAN}


def _train(model: str, num_workers: int, run: Path, record: Path, kill_after: int | None) -> None:
    """Train two epochs, save as often as possible, and resume from what the run has saved."""
    os.environ |= {"OMP_NUM_THREADS": "1", RECORD: str(record)}
    os.environ |= {KILL_AFTER: str(kill_after)} if kill_after is not None else {}
    multiprocessing.set_start_method("fork", force=True)  # DataLoader workers must be children of this process
    seed_everything(1, verbose=False)
    folder, data = run / "checkpoints", Data(num_workers=num_workers)
    callbacks = [Recorder(), LastCheckpoint(folder, every_n_train_steps=1)]
    settings: dict[str, Any] = {"max_epochs": 2, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    fit_hardened(MODELS[model](), data, run, callbacks, ckpt_path=newest_checkpoint(folder), **settings)


def _exit_code(model: str, num_workers: int, run: Path, record: Path, kill_after: int | None = None) -> int | None:
    process = WARM.Process(target=_train, args=(model, num_workers, run, record, kill_after))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_is_killed_at_any_batch_resumes_exactly(model: str, num_workers: int, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    assert _exit_code(model, num_workers, straight, tmp_path / "straight.jsonl") == 0
    found = {}
    for batch in range(FIRST, 2 * BATCHES):
        folder = tmp_path / str(batch)
        folder.mkdir()
        (folder / "straight.jsonl").symlink_to(tmp_path / "straight.jsonl")
        (folder / "straight.jsonl.attributes").symlink_to(tmp_path / "straight.jsonl.attributes")
        run = folder / "killed"
        assert _exit_code(model, num_workers, run, folder / "killed.jsonl", batch) == -signal.SIGKILL
        assert _exit_code(model, num_workers, run, folder / "resumed.jsonl") == 0
        first = json.loads((folder / "resumed.jsonl").read_text().splitlines()[0])[:2]
        allowed = [divmod(batch - late, BATCHES) for late in (0, 1, 2)]  # batches since the last save
        assert tuple(first) in allowed, f"killed at batch {batch}: resumed from epoch and batch {first}"
        if differences := compare(straight, run, folder):
            found[batch] = differences
    assert found == {}
