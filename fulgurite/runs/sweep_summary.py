"""Summarise a sweep: one row for each set of values, with mean and deviation over seeds and folds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import BasicSweeper
from fulgurite.core.formatting import show_sweep
from fulgurite.runs.run_directory import RunDirectory, key_and_value

SUMMARY = "summary.csv"
REPEAT_KEYS = ("seed", "data.fold")  # keys that repeat an experiment


@dataclass
class Row:
    """Jobs of a sweep that differ in their seed, or in the fold of their data, only.

    Attributes:
        values: The overrides that differ from those of other jobs, e.g. `model.optimizer.lr=0.1`.
        failed: How many jobs are neither done nor pruned.
        metrics: Name to one number for each job that is done.
        in_folds: Whether the jobs held out different folds, so that they are compared by the validation.
    """

    values: tuple[str, ...]
    runs: list[RunDirectory] = field(default_factory=list)
    failed: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict)
    in_folds: bool = False

    def mean_and_deviation(self, metric: str) -> tuple[float, float | None] | None:
        """Return mean and sample standard deviation; the latter is None for one job, both for none."""
        numbers = self.metrics.get(metric)
        if not numbers:
            return None
        return mean(numbers), stdev(numbers) if len(numbers) > 1 else None


def summarise(folder: Path) -> list[Row]:
    """Return one row for each set of values that a sweep tried, in its jobs' order."""
    jobs = _jobs(folder)
    overrides = [_job_overrides(job) for job in jobs]
    shared = set.intersection(*map(set, overrides)) if overrides else set()
    rows: dict[tuple[str, ...], Row] = {}
    for job, given in zip(jobs, overrides, strict=True):
        varying = [(key_and_value(override)[0], override) for override in given if override not in shared]
        values = tuple(override for key, override in varying if key not in REPEAT_KEYS)
        row = rows.setdefault(values, Row(values))
        row.in_folds |= any(key == "data.fold" for key, _ in varying)
        row.runs.append(job)
        if (status := job.record["status"]) != "done":
            row.failed += status != "pruned"
            continue
        for name, value in job.metrics.items():
            row.metrics.setdefault(name, []).append(value)
    return list(rows.values())


def describe_stop(folder: Path, config: DictConfig | None, signal_name: str) -> str:
    """Return a line on a sweep that a signal stopped: jobs done, stopped, not started."""
    jobs = [(job.folder.name, job.record["status"]) for job in _jobs(folder)]
    done = sum(status == "done" for _, status in jobs)
    parts = [f"{done} job{'s' * (done != 1)} done"]
    parts += [f"job {name} {status}" for name, status in jobs if status != "done"]
    planned = planned_jobs(config) if config is not None else None
    parts.append(f"{planned - len(jobs) if planned is not None else 'the others'} not started")
    return f"sweep stopped by {signal_name}: {', '.join(parts)}"


def planned_jobs(config: DictConfig) -> int | None:
    """Return how many jobs a sweep has; None when only its sweeper knows."""
    sweeper = config.hydra.sweeper
    if (trials := sweeper.get("n_trials")) is not None:
        return int(trials)
    if not str(sweeper.get("_target_", "")).endswith((".BasicSweeper", ".GridSweeper")):
        return None
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # a job resolves the interpolations
    assert isinstance(given, list)
    parsed = OverridesParser.create().parse_overrides([*params, *map(str, given)])
    try:
        return sum(map(len, BasicSweeper.split_arguments(parsed, None)))
    except HydraException:  # glob(*) needs the sweeper's config folders
        return None


def conclude_sweep(folder: Path) -> None:
    """Print a sweep's table and write `summary.csv`.

    The table has the test metrics, else those of the validation; a cross-validation has those of the validation first.
    """
    rows = summarise(folder)
    names = sorted({name for row in rows for name in row.metrics})
    _write(folder / SUMMARY, rows, names)
    splits = ("val/", "test/") if any(row.in_folds for row in rows) else ("test/", "val/")
    shown = next((of for split in splits if (of := [n for n in names if n.startswith(split)])), names)
    unfinished = [
        f"job {job.folder.name} {status}: {job.record.get('reason') or 'no reason is recorded'}"
        for job in _jobs(folder)
        if (status := job.record["status"]) != "done"
    ]
    show_sweep([_cells(row, shown) for row in rows], shown, folder, unfinished)


def shown_value(value: str) -> str:
    """Return a value as tables show it: a number of many digits is rounded to four."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 and not value.lstrip("+-").isdigit() else value
    except ValueError:
        return value


def shown_values(overrides: Sequence[str]) -> str:
    """Return the overrides that differ between jobs as one text; `all` for none."""
    parts = (override.partition("=") for override in overrides)
    return " ".join(f"{key}{equals}{shown_value(value)}" for key, equals, value in parts) or "all"


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    pairs = [row.mean_and_deviation(name) for name in names]
    numbers = ["-" if pair is None else " ± ".join(f"{n:.4f}" for n in pair if n is not None) for pair in pairs]
    jobs = f"{len(row.runs)}" + (f" ({row.failed} failed)" if row.failed else "")
    return [shown_values(row.values), jobs, *numbers]


def _write(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["values", "jobs", "failed", *(f"{name} {what}" for name in names for what in ("mean", "std"))])
        for row in rows:
            pairs: list[Any] = [row.mean_and_deviation(name) or (None, None) for name in names]
            writer.writerow([" ".join(row.values), len(row.runs), row.failed, *chain.from_iterable(pairs)])


def _jobs(folder: Path) -> list[RunDirectory]:
    """Return the jobs of a sweep that have a readable record, by number."""
    paths = sorted(folder.iterdir(), key=lambda path: (int(path.name) if path.name.isdigit() else -1, path.name))
    return [run for path in paths if path.is_dir() and (run := RunDirectory.of(path)) is not None]


def _job_overrides(job: RunDirectory) -> list[str]:
    # a resumed job has the overrides of its resume behind its values
    return list(takewhile(lambda override: not override.startswith("resume.run="), job.overrides))
