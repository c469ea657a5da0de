"""What a sweep came to: one row for each set of values, its seeds and folds summed up as mean and deviation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import BasicSweeper
from fulgurite.core.formatting import show_sweep

SUMMARY = "summary.csv"
FOLDED = ("seed=", "data.fold=")  # repeats of one experiment, not experiments of their own


@dataclass
class Row:
    """Jobs of a sweep that differ in their seed, or in the fold of their data, only.

    Attributes:
        values: The overrides that tell them from the other jobs, e.g. `model.optimizer.lr=0.1`.
        jobs: How many there are.
        failed: How many of them ended neither with status done nor pruned.
        metrics: Name to one number a job that ended.
        in_folds: Whether they held out different folds, so that the validation is what they are judged by.
        folders: The jobs' run directories.
    """

    values: tuple[str, ...]
    jobs: int = 0
    failed: int = 0
    metrics: dict[str, list[float]] = field(default_factory=dict)
    in_folds: bool = False
    folders: list[Path] = field(default_factory=list)

    def mean_and_deviation(self, metric: str) -> tuple[float, float | None] | None:
        """Return mean and sample standard deviation; the latter is None for one job, both for none."""
        numbers = self.metrics.get(metric)
        if not numbers:
            return None
        return mean(numbers), stdev(numbers) if len(numbers) > 1 else None


def summarise(folder: Path) -> list[Row]:
    """Return one row for each set of values that a sweep tried, in the order of its jobs.

    Args:
        folder: The sweep's directory, with one run directory a job.
    """
    jobs = sorted((job for job in folder.iterdir() if (job / "run.json").is_file()), key=lambda job: _order(job.name))
    words = [_overrides(job) for job in jobs]
    shared = set.intersection(*map(set, words)) if words else set()
    rows: dict[tuple[str, ...], Row] = {}
    for job, given in zip(jobs, words, strict=True):
        values = tuple(word for word in given if word not in shared and not word.startswith(FOLDED))
        row = rows.setdefault(values, Row(values))
        row.in_folds |= any(word.startswith("data.fold=") for word in given if word not in shared)
        row.jobs += 1
        row.folders.append(job)
        if (status := json.loads((job / "run.json").read_text())["status"]) != "done":
            row.failed += status != "pruned"
            continue
        results = job / "results.json"  # a job that neither trains nor tests has none
        metrics = json.loads(results.read_text())["metrics"] if results.is_file() else {}
        for name, value in metrics.items():
            row.metrics.setdefault(name, []).append(value)
    return list(rows.values())


def tell_stop(folder: Path, config: DictConfig | None, signal_name: str) -> str:
    """Return a line on a sweep that a signal has stopped: what is done, which job it met, how many were not started.

    Args:
        folder: The sweep's directory.
        config: The sweep's config, from which the number of its jobs is read.
        signal_name: E.g. `SIGTERM`.
    """
    jobs = {job.parent.name: json.loads(job.read_text())["status"] for job in folder.glob("*/run.json")}
    done = sum(status == "done" for status in jobs.values())
    parts = [f"{done} job{'s' * (done != 1)} done"]
    parts += [
        f"job {name} {status}"
        for name, status in sorted(jobs.items(), key=lambda job: _order(job[0]))
        if status != "done"
    ]
    planned = planned_jobs(config) if config is not None else None
    parts.append(f"{planned - len(jobs) if planned is not None else 'the others'} not started")
    return f"sweep stopped by {signal_name}: {', '.join(parts)}"


def planned_jobs(config: DictConfig) -> int | None:
    """Return how many jobs a sweep is to have; None where its sweeper does not tell beforehand.

    Args:
        config: The sweep's config with Hydra's part.
    """
    sweeper = config.hydra.sweeper
    if (trials := sweeper.get("n_trials")) is not None:
        return int(trials)
    if not str(sweeper.get("_target_", "")).endswith((".BasicSweeper", ".GridSweeper")):
        return None
    words = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # what a job fills in stays as it is
    assert isinstance(given, list)
    parsed = OverridesParser.create().parse_overrides([*words, *map(str, given)])
    try:
        return sum(map(len, BasicSweeper.split_arguments(parsed, None)))
    except HydraException:  # glob(*): only a sweeper that looks at the folders knows
        return None


def conclude_sweep(folder: Path) -> None:
    """Print a sweep's table, of the test if there was one, else of the validation; `summary.csv` has every metric.

    A cross-validation is shown by what it is for, the validation.
    """
    rows = summarise(folder)
    names = sorted({name for row in rows for name in row.metrics})
    _write(folder / SUMMARY, rows, names)
    splits = ("val/", "test/") if any(row.in_folds for row in rows) else ("test/", "val/")
    shown = next((of for split in splits if (of := [n for n in names if n.startswith(split)])), names)
    show_sweep([_cells(row, shown) for row in rows], shown, folder, list(_ends(folder)))


def _ends(folder: Path) -> Iterator[str]:
    """Yield a line on each job that is not done: its number, how it ended and why."""
    for path in sorted(folder.glob("*/run.json"), key=lambda path: _order(path.parent.name)):
        record = json.loads(path.read_text())
        if record["status"] != "done":
            yield f"job {path.parent.name} {record['status']}: {record.get('reason') or 'no reason is known'}"


def shown_value(value: str) -> str:
    """Return a value as tables show it: of a number with many digits, as searches try them, the first four."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 and not value.lstrip("+-").isdigit() else value
    except ValueError:
        return value


def shown_values(words: Sequence[str]) -> str:
    """Return the words that tell jobs from others as one text; `all` for none."""
    parts = (word.partition("=") for word in words)
    return " ".join(f"{key}{equals}{shown_value(value)}" for key, equals, value in parts) or "all"


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    found = [row.mean_and_deviation(name) for name in names]
    numbers = [
        "-" if pair is None else f"{pair[0]:.4f}" + (f" ± {pair[1]:.4f}" if pair[1] is not None else "")
        for pair in found
    ]
    jobs = f"{row.jobs}" + (f" ({row.failed} failed)" if row.failed else "")
    return [shown_values(row.values), jobs, *numbers]


def _write(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["values", "jobs", "failed", *(f"{name} {what}" for name in names for what in ("mean", "std"))])
        for row in rows:
            pairs: list[Any] = [row.mean_and_deviation(name) or (None, None) for name in names]
            writer.writerow(
                [" ".join(row.values), row.jobs, row.failed, *(number for pair in pairs for number in pair)]
            )


def _overrides(job: Path) -> list[str]:
    path = job / ".hydra" / "overrides.yaml"
    words = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else []
    assert isinstance(words, list)
    # what a job was told to go on from stands behind its values
    return list(takewhile(lambda word: not word.startswith("resume.run="), map(str, words)))


def _order(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else -1, name)
