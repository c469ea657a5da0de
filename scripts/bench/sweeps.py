"""P5: compare a grid of sleeping jobs on one and on two slots, and measure the cost of each further job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from scripts.bench.measure import CompletedChild, Row, Threshold, measure_in_turns, ratios, run_child

NUM_JOBS, NUM_JOBS_FEW = 12, 2
SLOT_OVERRIDES = ("hydra/launcher=local", "hydra.launcher.slots=2")
JOB_OVERRIDES = (  # of a second: few batches, and a callback that sleeps
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=4",
    "+trainer.limit_val_batches=2",
    "test=false",
    "extras.print_config=false",
    "extras.allowed_targets=[scripts]",
    "+callbacks.sleep={_target_: scripts.bench.sleep_callback.Sleep, seconds: 1.0}",
)


def sweep_rows(repeats: int, folder: Path, *, quick: bool) -> list[Row]:
    """Measure the wall time of whole commands, and the CPU time of each job beyond the first two.

    Args:
        repeats: Number of measured rounds.
        folder: For what the jobs write.
        quick: Three jobs instead of twelve.
    """
    jobs = 3 if quick else NUM_JOBS
    things: dict[str, Callable[[], CompletedChild]] = {
        f"{name}, {number} jobs": partial(_sweep, folder, number, words)
        for number in (NUM_JOBS_FEW, jobs)
        for name, words in (("serial", ()), ("2 slots", SLOT_OVERRIDES))
    }
    found = measure_in_turns(things, repeats)
    wall = {name: [child.wall for child in found[f"{name}, {jobs} jobs"]] for name in ("serial", "2 slots")}
    more = {
        name: [
            (many.cpu - few.cpu) / (jobs - NUM_JOBS_FEW)
            for many, few in zip(found[f"{name}, {jobs} jobs"], found[f"{name}, {NUM_JOBS_FEW} jobs"], strict=True)
        ]
        for name in ("serial", "2 slots")
    }
    few = [child.cpu for child in found[f"2 slots, {NUM_JOBS_FEW} jobs"]]
    starts = [cpu - NUM_JOBS_FEW * job for cpu, job in zip(few, more["2 slots"], strict=True)]
    return [
        Row("P5", f"{jobs} jobs of a second, 2 slots over serial", "x", ratios(wall["2 slots"], wall["serial"]),
            Threshold(0.65), {f"{name}, s": seconds for name, seconds in wall.items()}),
        Row("P5", "a further job, CPU over the start's", "x", ratios(more["2 slots"], starts), Threshold(0.15),
            {"start, CPU, s": starts, **{f"{name}, a job, CPU, s": seconds for name, seconds in more.items()}}),
    ]  # fmt: skip


def _sweep(folder: Path, jobs: int, words: tuple[str, ...]) -> CompletedChild:
    logs = mkdtemp(dir=folder)
    command = [
        sys.executable,
        "src/train.py",
        "-m",
        *JOB_OVERRIDES,
        *words,
        f"seed=range({jobs})",
        f"paths.log_dir={logs}",
    ]
    child = run_child(command, env={"OMP_NUM_THREADS": "1"})
    if child.exit_code:
        raise SystemExit(f"{' '.join(command)}: exit code {child.exit_code}\n{child.err[-2000:]}")
    return child
