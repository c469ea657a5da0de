"""P7: compare two processes on two cores with one process on one core, for a net of 1 ms a sample."""

from __future__ import annotations

import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, process_time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from scripts.bench.measure import Row, Threshold, measure_in_turns, ratios, run_child

BATCH_SIZE = 128  # global batch size
NUM_WARMUP_STEPS = 5  # steps before the measurement
MODEL_OVERRIDES = (
    "model=mnist_convnet",
    "model.net.channels=[48,64]",  # forward and backward pass together take 1 ms a sample on one core of 2024
    f"data.batch_size={BATCH_SIZE}",
    "data.augment=null",
)
TRAINER_OVERRIDES = (
    "test=false",
    "trainer.max_epochs=1",
    "+trainer.limit_val_batches=0",
    "callbacks=none",
    "model.scheduler=null",
    "extras.print_config=false",
    "extras.allowed_targets=[scripts]",
)


class StepTimer(Callback):
    """Write the median seconds between two optimizer steps of rank 0.

    Args:
        file: Gets `{"wall": seconds, "cpu": seconds}`; cpu counts all threads of this process.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.stamps: list[tuple[float, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step."""
        self.stamps.append((perf_counter(), process_time()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if trainer.global_rank == 0:
            gaps = [
                (after[0] - before[0], after[1] - before[1])
                for before, after in pairwise(self.stamps[NUM_WARMUP_STEPS:])
            ]
            wall, cpu = (statistics.median(column) for column in zip(*gaps, strict=True))
            self.file.write_text(json.dumps({"wall": wall, "cpu": cpu}))


def rank_rows(steps: int, repeats: int, folder: Path, clock: str) -> list[Row]:
    """Measure how many samples a second two processes train on, over how many one does.

    Args:
        steps: Optimizer steps of each run, including warm-up.
        repeats: Number of measured rounds.
        folder: For the run directories.
        clock: `wall`, or `cpu` on a busy machine: without the time in which rank 0 waits.
    """
    one, two, apart = "one", "two together", "two apart"
    found = measure_in_turns(
        {
            one: lambda: [_pace(1, steps, folder)],
            two: lambda: [_pace(2, steps, folder)],
            apart: lambda: _pace_apart(steps, folder),
        },
        repeats,
    )
    pace = {name: [sum(BATCH_SIZE / run[clock] for run in runs) for runs in rounds] for name, rounds in found.items()}
    parts = {f"{name}, samples/s": values for name, values in pace.items()}
    parts["one, ms of CPU a sample"] = [1000 * runs[0]["cpu"] / BATCH_SIZE for runs in found[one]]
    what = f"samples a second ({clock}), two processes of one thread over one"
    machine = f"the same ({clock}), two independent runs over one: the limit of the cores"
    return [
        Row("P7", what, "x", ratios(pace[two], pace[one]), Threshold(1.5, at_least=True), parts),
        Row("P7", machine, "x", ratios(pace[apart], pace[one])),
    ]


def _pace_apart(steps: int, folder: Path) -> list[dict[str, float]]:
    with ThreadPoolExecutor(2) as both:
        return list(both.map(lambda _: _pace(1, steps, folder), range(2)))


def _pace(processes: int, steps: int, folder: Path) -> dict[str, float]:
    """Train by the command that a user gives, and return seconds a step."""
    place = Path(mkdtemp(dir=folder))
    words = (
        f"+trainer.limit_train_batches={steps}",
        f"+callbacks.pace={{_target_: scripts.bench.ranks.StepTimer, file: '{place}/pace.json'}}",
        f"paths.log_dir={place}",
        f"trainer={'ddp_sim' if processes > 1 else 'cpu'}",
        f"trainer.devices={processes}",
    )
    done = run_child(
        [sys.executable, "src/train.py", *MODEL_OVERRIDES, *TRAINER_OVERRIDES, *words], env={"OMP_NUM_THREADS": "1"}
    )
    if done.exit_code:
        raise RuntimeError(f"{processes} processes: exit code {done.exit_code}: {done.err}")
    seconds: dict[str, float] = json.loads((place / "pace.json").read_text())
    return seconds
