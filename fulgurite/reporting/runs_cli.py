"""Show the runs and sweeps below logs/ as a table.

    python -m fulgurite runs tag=baseline status=done model.optimizer.lr=0.001 sort=test/acc top=20
    python -m fulgurite runs logs/train show=sweeps format=markdown

The first word without `=` is the folder to look through; logs/ when there is none. Words of its own:

    status=failed,killed      any of running, done, failed, killed, pruned
    tag=baseline              a tag the run has
    task=train                its task_name
    sort=test/acc             a metric, best first; or start (the default, newest first), seconds, run
    order=asc                 asc or desc, instead of best first
    top=20                    how many rows; all when not given
    metrics=test/acc,val/acc  columns; when not given those of the test, else of the validation
    show=sweeps               a row a sweep instead of a row a run
    format=csv                table, json, csv or markdown

Every other word filters by what a run was started with, `seed=1,2` by either. Reads the files of run directories only.
Ends with 0, or with 2 on bad input.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.core.errors import FulguriteError, UserError, did_you_mean
from fulgurite.core.metric_names import less_is_better
from fulgurite.core.project import project_root
from fulgurite.reporting.collect import RunSummary, find_runs, key_and_value, read_runs
from fulgurite.reporting.tables import FORMATS, chosen_metrics, rows_of_runs, rows_of_sweeps, write

STATUSES = ("running", "done", "failed", "killed", "pruned")
OWN = ("status", "tag", "task", "sort", "order", "top", "metrics", "show", "format")
FIELDS: dict[str, Callable[[RunSummary], float | str | None]] = {
    "start": lambda run: run.record.get("start"),
    "seconds": lambda run: run.seconds,
    "run": lambda run: run.folder,
}


@dataclass
class Query:
    """What the words of a command line ask for.

    Attributes:
        folder: Where to look.
        own: Words of this command by name.
        values: Overrides to filter by: key to the values that will do.
    """

    folder: Path = field(default_factory=lambda: project_root() / "logs")
    own: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)

    def many(self, name: str) -> list[str]:
        """Return a word's value split at its commas."""
        return [part for part in self.own.get(name, "").split(",") if part]


def read_words(words: Sequence[str]) -> Query:
    """Return what a command line asks for.

    Raises:
        UserError: A word cannot be used.
    """
    asked = Query()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not key.startswith(("~", "-")):
            asked.folder = Path(word).expanduser().absolute()
        elif key in OWN:
            asked.own[key] = value
        elif key.startswith("-"):
            raise UserError(f"{word}: is no word of this command; --help lists them")
        else:
            plain = not value.startswith(("[", "{", "'", '"'))
            asked.values[key_and_value(word)[0]] = value.split(",") if plain else [value]
    for name, known in (("format", FORMATS), ("show", ("runs", "sweeps")), ("order", ("asc", "desc"))):
        _require(name, [asked.own[name]] if name in asked.own else [], known)
    _require("status", asked.many("status"), STATUSES)
    if not asked.own.get("top", "1").isdecimal():
        raise UserError(f"top={asked.own['top']}: is a number of rows; e.g. top=20")
    if not asked.folder.is_dir():
        raise UserError(f"{asked.folder}: there is no such folder; name one that holds runs, e.g. logs/train")
    return asked


def _require(name: str, given: Iterable[str], known: Sequence[str]) -> None:
    for value in given:
        if value not in known:
            raise UserError(f"{name}={value}: choose from {', '.join(known)}{did_you_mean(value, known)}")


def chosen(runs: Sequence[RunSummary], asked: Query) -> list[RunSummary]:
    """Return the runs that every filter lets pass.

    Raises:
        UserError: A filter is by a key that no run was started with.
    """
    keys = {key for run in runs for key in run.values}
    for key in asked.values:
        if runs and key not in keys:
            raise UserError(f"{key}: no run here was started with a value for it{did_you_mean(key, keys)}")
    statuses, tags, tasks = (asked.many(name) for name in ("status", "tag", "task"))
    return [
        run
        for run in runs
        if (not tasks or run.record.get("task_name") in tasks)
        and (not tags or not set(tags).isdisjoint(run.record.get("tags") or []))
        and all(key in run.values and _is_one_of(run.values[key], wanted) for key, wanted in asked.values.items())
        and (not statuses or run.status in statuses)
    ]


def _is_one_of(value: str, wanted: Sequence[str]) -> bool:
    """Tell whether a value is among others, numbers by what they are: `1e-3` is `0.001`."""
    return any(value == other or (_number(value) is not None and _number(value) == _number(other)) for other in wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def in_order(runs: Sequence[RunSummary], by: str, order: str | None) -> list[RunSummary]:
    """Return the runs sorted; those that lack what is sorted by come last.

    Args:
        runs: The runs.
        by: A metric, `start`, `seconds` or `run`.
        order: `asc` or `desc`; None puts the best, the newest or the first name in front.
    """

    def value(run: RunSummary) -> Any:
        of = FIELDS[by](run) if by in FIELDS else run.metrics.get(by)
        return None if isinstance(of, float) and math.isnan(of) else of

    upwards = order == "asc" if order else by == "run" or less_is_better(by)
    having = sorted((run for run in runs if value(run) is not None), key=value, reverse=not upwards)
    return having + [run for run in runs if value(run) is None]


def sorted_by(asked: Query, runs: Sequence[RunSummary]) -> str:
    """Return what to sort by.

    Raises:
        UserError: No run at all has such a metric.
    """
    by = asked.own.get("sort", "start")
    known = [*FIELDS, *sorted({name for run in runs for name in run.metrics})]
    if runs and by not in known:
        raise UserError(f"sort={by}: no run here has it; choose from {', '.join(known)}{did_you_mean(by, known)}")
    return by


def main(words: Sequence[str]) -> int:
    """Print what the words ask for and return the exit code."""
    if any(word in {"-h", "--help", "help"} for word in words):
        print(__doc__)
        return 0
    try:
        asked = read_words(words)
        all_runs = read_runs(find_runs(asked.folder))
        by = sorted_by(asked, all_runs)
        runs = in_order(chosen(all_runs, asked), by, asked.own.get("order"))
        metrics = chosen_metrics(all_runs, runs, asked.many("metrics"), by)
        make = rows_of_sweeps if asked.own.get("show") == "sweeps" else rows_of_runs
        rows = make(runs, metrics, asked.folder)
        shown = rows[: int(asked.own["top"])] if "top" in asked.own else rows
        write(shown, asked.own.get("format", "table"), sys.stdout)
        sys.stdout.flush()
    except FulguriteError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:  # `| head` has seen enough; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    what = asked.own.get("show", "runs")
    sys.stderr.write(f"{len(shown)} of {len(rows)} {what} shown, {len(all_runs)} runs below {asked.folder}\n")
    return 0
