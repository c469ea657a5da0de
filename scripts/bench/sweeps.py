"""P5: a grid of jobs that mostly wait, one after the other and on two slots, and what each further job costs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from scripts.bench.measure import Bar, Child, Row, alternate, ratios, run_child

JOBS, FEW = 12, 2
SLOTS = ("hydra/launcher=local", "hydra.launcher.slots=2")
JOB = (  # of a second: few batches, and a callback that sleeps
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=4",
    "+trainer.limit_val_batches=2",
    "test=false",
    "extras.print_config=false",
    "extras.allowed_targets=[scripts]",
    "+callbacks.sleep={_target_: scripts.bench.sleeping.Sleep, seconds: 1.0}",
)


def sweep_rows(repeats: int, folder: Path, *, quick: bool) -> list[Row]:
    """Measure whole commands by the clock on the wall, and the CPU of the jobs beyond the first two.

    Args:
        repeats: Rounds that count.
        folder: For what the jobs write.
        quick: Three jobs instead of twelve.
    """
    jobs = 3 if quick else JOBS
    things: dict[str, Callable[[], Child]] = {
        f"{name}, {number} jobs": partial(_sweep, folder, number, words)
        for number in (FEW, jobs)
        for name, words in (("serial", ()), ("2 slots", SLOTS))
    }
    found = alternate(things, repeats)
    wall = {name: [child.wall for child in found[f"{name}, {jobs} jobs"]] for name in ("serial", "2 slots")}
    more = {
        name: [
            (many.cpu - few.cpu) / (jobs - FEW)
            for many, few in zip(found[f"{name}, {jobs} jobs"], found[f"{name}, {FEW} jobs"], strict=True)
        ]
        for name in ("serial", "2 slots")
    }
    few = [child.cpu for child in found[f"2 slots, {FEW} jobs"]]
    starts = [cpu - FEW * job for cpu, job in zip(few, more["2 slots"], strict=True)]
    return [
        Row("P5", f"{jobs} jobs of a second on 2 slots, over one by one", "x", ratios(wall["2 slots"], wall["serial"]),
            Bar(0.65), {f"{name}, s": seconds for name, seconds in wall.items()}),
        Row("P5", "a further job on a slot, CPU over the start's", "x", ratios(more["2 slots"], starts), Bar(0.15),
            {"start, CPU, s": starts, **{f"{name}, a job, CPU, s": seconds for name, seconds in more.items()}}),
    ]  # fmt: skip


def _sweep(folder: Path, jobs: int, words: tuple[str, ...]) -> Child:
    logs = mkdtemp(dir=folder)
    command = [sys.executable, "src/train.py", "-m", *JOB, *words, f"seed=range({jobs})", f"paths.log_dir={logs}"]
    child = run_child(command, env={"OMP_NUM_THREADS": "1"})
    if child.exit_code:
        raise SystemExit(f"{' '.join(command)}: ended with {child.exit_code}\n{child.err[-2000:]}")
    return child
