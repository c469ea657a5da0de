"""P2 and P3: compare an epoch and a step with a plain loop and another template; check a long run for slowdown."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, process_time
from typing import cast

from torch import nn

from scripts.bench import per_sample_loop, plain_loop, template_run
from scripts.bench.images import Size, normalised, raw
from scripts.bench.measure import Row, Threshold, differences, measure_in_turns, ratios
from src.data.mnist import MNISTDataModule

CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}


@dataclass(frozen=True)
class EpochResult:
    """One epoch.

    Attributes:
        seconds: From the call to the validation metrics.
        step_ms: Milliseconds from one optimizer step to the next, on average; 0 if not measured.
        acc: Accuracy on the validation set, 0 to 1.
    """

    seconds: float
    step_ms: float
    acc: float


def epoch_rows(size: Size, repeats: int, folder: Path, clock: str) -> list[Row]:
    """Measure one epoch and one step of it.

    Args:
        size: Number of images.
        repeats: Number of measured rounds.
        folder: For the run directories.
        clock: `wall`, or `cpu` for the CPU seconds of this process.
    """
    now = CLOCKS[clock]
    first = template_run.build_run(size, folder)
    data, net = cast(MNISTDataModule, first.datamodule), cast(nn.Module, first.model.net)
    ready = normalised(data.train_set), normalised(data.val_set)
    pixels = raw(data.train_set), raw(data.val_set)

    def run_plain() -> EpochResult:
        fresh, start = copy.deepcopy(net), now()
        stamps, results = plain_loop.train_epoch(fresh, *ready, now)
        return EpochResult(now() - start, _step_ms(stamps), results["val/acc"])

    def run_ancestor() -> EpochResult:
        fresh, start = copy.deepcopy(net), now()
        results = per_sample_loop.train_epoch(fresh, *pixels, Path(mkdtemp(dir=folder)))
        return EpochResult(now() - start, 0.0, results["val/acc"])

    def run_ours() -> EpochResult:
        run, start = template_run.build_run(size, folder), now()
        steps = template_run.fit_run(run, now)
        return EpochResult(now() - start, _step_ms(steps.stamps), float(run.trainer.callback_metrics["val/acc"]))

    found = measure_in_turns({"plain": run_plain, "ancestor": run_ancestor, "ours": run_ours}, repeats)
    seconds = {f"{name}, s": [epoch.seconds for epoch in epochs] for name, epochs in found.items()}
    accuracies = {f"{name}, val/acc": [epoch.acc for epoch in epochs] for name, epochs in found.items()}
    steps = {f"{name}, ms": [epoch.step_ms for epoch in found[name]] for name in ("plain", "ours")}
    limit, peer, mine = seconds["plain, s"], seconds["ancestor, s"], seconds["ours, s"]
    return [
        Row(
            "P2", "one epoch, ours over the plain loop", "x", ratios(mine, limit), Threshold(1.8), seconds | accuracies
        ),
        Row("P2", "one epoch, another template over ours", "x", ratios(peer, mine), Threshold(6.5, at_least=True)),
        Row(
            "P3",
            "one step, ours minus the plain loop",
            "ms",
            differences(steps["ours, ms"], steps["plain, ms"]),
            Threshold(1.0),
            steps,
        ),
    ]


def _step_ms(stamps: Sequence[float]) -> float:
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) * 1000


def long_run_rows(size: Size, window: int, folder: Path, clock: str) -> list[Row]:
    """Compare speed and memory at the end of a run of ten windows with its start, after one warm-up window.

    Args:
        size: Number of images.
        window: Number of steps in a window.
        folder: For the run directory.
        clock: As in `epoch_rows`.
    """
    words = (f"+trainer.max_steps={11 * window}", "trainer.max_epochs=-1", "~callbacks.early_stopping")
    steps = template_run.fit_run(template_run.build_run(size, folder, *words), CLOCKS[clock], weigh_every=window)
    times = window_medians(steps.stamps, window)[1:]
    growth = (steps.sizes[-1] - steps.sizes[1]) / 2**20  # from the end of the first window after the warm-up
    parts = {
        "median step of each window, ms": times,
        "resident after each window, MiB": [s / 2**20 for s in steps.sizes[1:]],
    }
    total = 10 * window
    return [
        Row(
            "P3",
            f"{total:,} steps, the last {window:,} over the first {window:,}",
            "x",
            [times[-1] / times[0]],
            Threshold(1.1),
            parts,
        ),
        Row("P3", f"{total:,} steps, growth of resident memory", "MiB", [growth], Threshold(8.0)),
    ]


def window_medians(stamps: Sequence[float], window: int) -> list[float]:
    """Return the median time between two stamps, in ms, of each whole window of `window` stamps."""
    gaps = [(after - before) * 1000 for before, after in pairwise(stamps)]
    # the first window has one gap less
    bounds = range(window - 1, len(gaps) + 1, window)
    return [statistics.median(gaps[max(0, end - window) : end]) for end in bounds]
