"""Summarise a sweep: one row for each set of values, with mean and 95 % interval over seeds and folds."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from pathlib import Path
from statistics import mean
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import BasicSweeper
from fulgurite.config.metric_names import as_names, is_minimized
from fulgurite.config.tracing.settings import read_yaml
from fulgurite.core.errors import printable
from fulgurite.core.files import open_regular
from fulgurite.core.formatting import counted, format_number, format_spread, parse_count
from fulgurite.reporting.statistics import Spread, spread
from fulgurite.reporting.terminal_table import show_sweep
from fulgurite.runs.layout import CONFIG
from fulgurite.runs.run_directory import RunDirectory, key_and_value
from fulgurite.runs.run_files import warn_unreadable

SUMMARY = "summary.csv"
MAX_YAML = 1 << 22  # bytes of a config that Hydra saved; parsing takes seconds
REPEAT_KEYS = ("seed", "data.fold")  # keys that repeat an experiment


@dataclass
class Group:
    """Jobs of a sweep that differ in their seed, or in the fold of their data, only.

    Attributes:
        values: The overrides that differ from those of other jobs, e.g. `model.optimizer.lr=0.1`.
        states: How many jobs have each status.
        metrics: Name to one number for each job that is done.
        in_folds: Whether the jobs held out different folds, so that they are compared by the validation.
    """

    values: tuple[str, ...]
    runs: list[RunDirectory] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    in_folds: bool = False

    @property
    def name(self) -> str:
        """The values as one text, as tables show them."""
        return shown_values(self.values)

    def spread(self, metric: str) -> Spread | None:
        """Return mean, standard deviation and interval of a metric over the jobs; None without a finite number."""
        numbers = [number for number in self.metrics.get(metric, ()) if math.isfinite(number)]
        return spread(numbers) if numbers else None

    def by_seed(self, metric: str) -> dict[str, float]:
        """Return seed (and fold) to the mean of a metric over the jobs that have a finite number."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if run.status == "done" and math.isfinite(value := run.metrics.get(metric, math.nan)):
                found.setdefault(seed_of(run), []).append(value)
        return {seed: mean(values) for seed, values in found.items()}


def seed_of(run: RunDirectory) -> str:
    """Return the seed and fold of a run, e.g. `seed=3`."""
    return " ".join(f"{key}={run.values[key]}" for key in REPEAT_KEYS if key in run.values)


def summarise(folder: Path) -> list[Group]:
    """Return one group for each set of values that a sweep tried, in its jobs' order."""
    return _groups_of(_jobs(folder))


def _groups_of(jobs: Sequence[RunDirectory]) -> list[Group]:
    # a resumed job has the overrides of its resume behind its values
    overrides = [[*takewhile(lambda given: not given.startswith("resume.run="), job.shown_overrides)] for job in jobs]
    shared = set.intersection(*map(set, overrides)) if overrides else set()
    groups: dict[tuple[str, ...], Group] = {}
    for job, given in zip(jobs, overrides, strict=True):
        varying = [(key_and_value(override)[0], override) for override in given if override not in shared]
        values = tuple(override for key, override in varying if key not in REPEAT_KEYS)
        group = groups.setdefault(values, Group(values))
        group.in_folds |= any(key == "data.fold" for key, _ in varying)
        group.runs.append(job)
        group.states[job.status] += 1
        for name, value in job.metrics.items() if job.status == "done" else ():
            group.metrics.setdefault(name, []).append(value)
    return list(groups.values())


def describe_stop(folder: Path, config: DictConfig | None, signal_name: str) -> str:
    """Return a line on a sweep that a signal stopped: jobs done, stopped, not started."""
    jobs = [(printable(job.folder.name), printable(str(job.record["status"]))) for job in _jobs(folder)]
    done = sum(status == "done" for _, status in jobs)
    parts = [f"{counted(done, 'job')} done"]
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
    """Print a sweep's table, the best row first, and write `summary.csv`.

    The table leads with the metric that was optimised, see `leading_metrics`. Then come the test metrics, else those of
    the validation; a cross-validation has those of the validation.
    """
    jobs = _jobs(folder)
    groups = _groups_of(jobs)
    names = sorted({name for group in groups for name in group.metrics})
    _write(folder / SUMMARY, groups, names)
    leading, mode = leading_metrics(folder, jobs, names)
    splits = ("val/", "test/") if any(group.in_folds for group in groups) else ("test/", "val/")
    others = next((of for split in splits if (of := [name for name in names if name.startswith(split)])), names)
    shown = list(dict.fromkeys([*leading, *others]))
    unfinished = [
        printable(f"job {job.folder.name} {job.status}: {job.reason or 'no reason is recorded'}")
        for job in jobs
        if job.status != "done"
    ]
    ranked = ranked_groups(groups, leading[0], mode) if leading else groups
    has_best = bool(leading) and len(ranked) > 1 and ranked[0].spread(leading[0]) is not None
    show_sweep([_cells(group, shown) for group in ranked], shown, folder, unfinished, has_best=has_best)


def leading_metrics(folder: Path, runs: Sequence[RunDirectory], logged: Sequence[str]) -> tuple[list[str], str]:
    """Return the metrics that rank the rows of a sweep, and `max` or `min` for the first one.

    Those of `optimized_metric`, else the best of the monitored metric, the monitored metric, or the first of the
    validation, as far as a job has logged it.
    """
    config, sweep = _saved(runs[0].folder / CONFIG) if runs else {}, _saved(folder / "multirun.yaml")
    optimised = [name for name in as_names(config.get("optimized_metric")) if name in logged]
    if optimised:
        direction = as_names(((sweep.get("hydra") or {}).get("sweeper") or {}).get("direction"))
        mode = {"maximize": "max", "minimize": "min"}.get(direction[0] if direction else "")
        return optimised, mode or direction_of(optimised[0])
    monitor = str(config.get("monitor"))
    for name in (f"{monitor}_best", monitor):
        if name in logged:
            return [name], str(config.get("monitor_mode") or direction_of(name))
    of_validation = [name for name in logged if name.startswith("val/")]
    found = next((name for name in of_validation if name.endswith("_best")), next(iter(of_validation), None))
    return ([found], direction_of(found)) if found else ([], "max")


def _saved(path: Path) -> dict[str, Any]:
    """Return the content of a file that Hydra saved; empty, with a warning for an odd file, if it is not readable."""
    try:
        open_regular(path, MAX_YAML).close()
    except FileNotFoundError:
        return {}
    except OSError as error:
        warn_unreadable(path, error)
        return {}
    return read_yaml(path)


def direction_of(metric: str) -> str:
    """Return `min` for a loss or an error by its name, else `max`."""
    return "min" if is_minimized(metric) else "max"


def ranked_groups(groups: Sequence[Group], metric: str, mode: str) -> list[Group]:
    """Return the groups, the best first; groups without a finite number come last."""
    sign = -1 if mode == "max" else 1

    def rank(group: Group) -> float:
        return sign * found.mean if (found := group.spread(metric)) else math.inf

    return sorted(groups, key=rank)


def shown_value(value: str) -> str:
    """Return a value as tables show it: a number of many digits is rounded to four."""
    try:
        return format_number(float(value)) if len(value) > 8 and not value.lstrip("+-").isdigit() else value
    except ValueError:
        return value


def shown_values(overrides: Sequence[str]) -> str:
    """Return the overrides that differ between jobs as one text; `all` for none."""
    parts = (override.partition("=") for override in overrides)
    return " ".join(f"{key}{equals}{shown_value(value)}" for key, equals, value in parts) or "all"


def _cells(group: Group, names: Sequence[str]) -> list[str]:
    spreads = [group.spread(name) for name in names]
    numbers = ["-" if found is None else format_spread(found.mean, found.half_width) for found in spreads]
    return [group.name, shown_jobs(group.states), *numbers]


def shown_jobs(states: Counter[str]) -> str:
    """Return the number of jobs, and how many are not done, by status: `3 (1 failed, 1 killed)`."""
    others = ", ".join(f"{number} {status}" for status, number in sorted(states.items()) if status != "done")
    return f"{states.total()}" + (f" ({others})" if others else "")


def _write(path: Path, groups: Sequence[Group], names: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = [f"{name} {what}" for name in names for what in ("mean", "std")]
        writer.writerow(["values", "jobs", "failed", "killed", *columns])
        for group in groups:
            spreads = [group.spread(name) for name in names]
            numbers = [(found.mean, found.deviation) if found else (None, None) for found in spreads]
            counts = (len(group.runs), group.states["failed"], group.states["killed"])
            writer.writerow([" ".join(group.values), *counts, *chain.from_iterable(numbers)])


def _jobs(folder: Path) -> list[RunDirectory]:
    """Return the jobs of a sweep that have a readable record, by number."""
    paths = sorted(folder.iterdir(), key=lambda path: (parse_count(path.name) or 0, path.name))
    return [run for path in paths if path.is_dir() and (run := RunDirectory.of(path)) is not None]
