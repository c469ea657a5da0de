"""Analyse the runs of a sweep: groups with intervals, the best two compared, importance of each key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fulgurite.core.errors import UserError, did_you_mean
from fulgurite.reporting.statistics import Paired, compare
from fulgurite.reporting.sweep_summary import Group, direction_of, leading_metrics, ranked_groups, summarise
from fulgurite.runs.run_directory import RunDirectory, find_runs, key_and_value, no_folder, read_runs

MODES = ("max", "min")
MIN_RUNS_FOR_IMPORTANCE = 10  # with fewer, chance explains as much as any value
DEFAULT = "(default)"  # the value of a run without an override of a key


@dataclass(frozen=True)
class Summary:
    """The summary of a sweep.

    Attributes:
        folder: The sweep's directory.
        metric: The metric that ranks the groups.
        mode: `max` or `min`.
        groups: The best first; groups without a number last.
        paired: The best two groups, compared over shared seeds; None without two groups.
    """

    folder: Path
    metric: str
    mode: str
    groups: list[Group]
    paired: Paired | None

    @property
    def runs(self) -> list[RunDirectory]:
        """All runs, in the order of the groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def best(self) -> Group | None:
        """The best group; None when no run has a number."""
        return self.groups[0] if self.groups and self.groups[0].spread(self.metric) else None

    @property
    def keys(self) -> list[str]:
        """The keys whose values differ between groups."""
        return list(dict.fromkeys(key_and_value(override)[0] for group in self.groups for override in group.values))

    @cached_property
    def importance(self) -> dict[str, float]:
        """The share of the metric's variance that each key alone explains, largest first.

        Empty for too few runs. The adjusted R² of Ezekiel (1930), 1 - (1 - R²)(n - 1) / (n - p - 1) and not below 0, of
        a fit to one key alone: the mean of each value, or a parabola where values are numbers and many, over their
        logarithm where they span decades. It estimates the main effect of a functional ANOVA and ignores interactions.
        Optuna's importances need scikit-learn and a study; this needs the runs' files only.
        """
        points = points_of(self)
        target = np.array([value for _, value in points])
        n = len(points)
        if n < MIN_RUNS_FOR_IMPORTANCE or not (total := float(((target - target.mean()) ** 2).sum())):
            return {}
        shares = {}
        for key in self.keys:
            fitted, terms = _fit([of[key] for of, _ in points], target)
            if n - terms - 1 > 0:
                unexplained = float(((target - fitted) ** 2).sum()) / total
                shares[key] = max(0.0, 1 - unexplained * (n - 1) / (n - terms - 1))
        return dict(sorted(shares.items(), key=lambda share: -share[1]))


def analyse_sweep(folder: Path, metric: str | None = None, mode: str | None = None) -> Summary:
    """Analyse a sweep of at least one job.

    Args:
        folder: The sweep's directory, with one run directory for each job.
        metric: The metric that ranks the groups; None: the optimised one, else the best of the validation.
        mode: `max` or `min`; None: the direction of the sweep, else by the metric's name.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {no_folder(folder)}. Name a sweep, e.g. logs/train/multiruns/<date>_<time>.")
    groups = summarise(folder)
    runs = [run for group in groups for run in group.runs]
    if not any(run.record.get("sweep") for run in runs):  # a folder of single runs will do, one above a sweep will not
        below = [run.folder.parent for run in read_runs(find_runs(folder)) if run.record.get("sweep")]
        if below or not runs:
            hint = f"e.g. {min(below)}" if below else "which has one folder per job"
            raise UserError(f"{folder}: no job of a sweep has a readable run.json here. Name a sweep, {hint}.")
    logged = sorted({name for group in groups for name in group.metrics})
    leading, leading_mode = leading_metrics(folder, runs, logged)
    chosen = metric or next(iter(leading), "val/acc")
    if logged and chosen not in logged:
        raise UserError(
            f"--metric={chosen}: no job has it; choose from {', '.join(logged)}{did_you_mean(chosen, logged)}"
        )
    if mode is None:
        mode = leading_mode if chosen in leading[:1] else direction_of(chosen)
    ranked = ranked_groups(groups, chosen, mode)
    having = [by_seed for group in ranked if (by_seed := group.by_seed(chosen))]
    paired = compare(having[0], having[1]) if len(having) > 1 else None
    return Summary(folder, chosen, mode, ranked, paired)


def has_folds(summary: Summary) -> bool:
    """Return whether the runs of a group were trained on different folds of the data."""
    return any(len({run.values.get("data.fold") for run in group.runs}) > 1 for group in summary.groups)


def points_of(summary: Summary) -> list[tuple[dict[str, str], float]]:
    """Return values by key and the metric of each run that has one."""
    return [
        ({key: run.values.get(key, DEFAULT) for key in summary.keys}, run.metrics[summary.metric])
        for run in summary.runs
        if run.status == "done" and math.isfinite(run.metrics.get(summary.metric, math.nan))
    ]


def numbers_of(values: Sequence[str]) -> list[float] | None:
    """Return values as numbers; None when a value is not a finite number."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def spans_decades(numbers: Sequence[float]) -> bool:
    """Return whether numbers span decades, so that they need a logarithmic scale."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= 50


def _fit(values: list[str], target: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the prediction of a key alone, and the number of its terms."""
    numbers, different = numbers_of(values), sorted(set(values))
    if numbers is not None and len(different) > 4:
        x = np.log(numbers) if spans_decades(numbers) else np.array(numbers)
        x = (x - x.mean()) / x.std()
        return np.polyval(np.polyfit(x, target, 2), x), 2
    where = np.array([different.index(value) for value in values])
    means = np.array([target[where == of].mean() for of in range(len(different))])
    return means[where], len(different) - 1
