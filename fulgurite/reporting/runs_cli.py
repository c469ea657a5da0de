"""List the runs and sweeps below logs/ as a table.

    python -m fulgurite runs --tag baseline --status done --sort test/acc --top 20 model.optimizer.lr=0.001
    python -m fulgurite runs logs/train --show sweeps --format markdown

Only the files of run directories are read. The exit code is 0, or 2 on invalid input.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fulgurite.config.metric_names import is_minimized
from fulgurite.core.cli_parser import CommandParser, list_of, one_of, print_error
from fulgurite.core.errors import FulguriteError, UserError, did_you_mean, printable
from fulgurite.core.formatting import counted, parse_count
from fulgurite.core.project import project_root
from fulgurite.reporting.tables import FORMATS, metric_columns, rows_of_runs, rows_of_sweeps, shared_overrides, write
from fulgurite.runs.run_directory import RunDirectory, as_number, find_runs, key_and_value, no_folder, read_runs

PROOF = "callbacks.probe._target_"  # an override of the runs of prove-resume
STATUSES = ("running", "done", "failed", "killed", "pruned")
FIELDS: dict[str, Callable[[RunDirectory], float | str | None]] = {
    "start": lambda run: run.record.get("start"),
    "seconds": lambda run: run.seconds,
    "run": lambda run: str(run.folder),
}


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, `folder`, and `values`: override key to accepted values."""
    parser = CommandParser("runs", __doc__)
    add = parser.add_argument
    add("arguments", nargs="*", metavar="folder | key=value", help="folder to search (logs/), overrides to filter by")
    add("--status", type=list_of("--status", STATUSES), default=[], help=f"any of {','.join(STATUSES)}")
    add("--tag", type=list_of("--tag"), default=[], help="tags, comma-separated; a run needs one of them")
    add("--task", type=list_of("--task"), default=[], help="task names, comma-separated")
    add("--sort", default="start", metavar="KEY", help="a metric, best first; or start (newest first), seconds, run")
    add("--order", type=one_of("--order", ("asc", "desc")), help="asc or desc, instead of best first")
    add("--top", type=_positive, metavar="N", help="number of rows (all)")
    add("--metrics", type=list_of("--metrics"), default=[], help="columns (test metrics, else validation metrics)")
    add("--show", type=one_of("--show", ("runs", "sweeps")), default="runs", help="one row per run or per sweep (runs)")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--format", type=one_of("--format", FORMATS), default="table", help=f"{', '.join(FORMATS)} (table)"
    )
    formats.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    query = parser.parse(argv)
    options = {option.lstrip("-") for option in parser._option_string_actions}
    folders, query.values = [], {}
    for argument in query.arguments:
        key, equals, value = argument.partition("=")
        if key in options:
            raise UserError(f"{argument}: an option is written with --. Pass {f'--{key} {value}'.strip()}.")
        if not equals and not key.startswith("~"):
            folders.append(argument)
        else:
            is_plain = not value.startswith(("[", "{", "'", '"'))
            query.values[key_and_value(argument)[0]] = value.split(",") if is_plain else [value]
    if len(folders) > 1:
        raise UserError(f"{' '.join(folders)}: not one folder. Name one folder of runs.")
    query.folder = Path(folders[0]).expanduser().absolute() if folders else project_root() / "logs"
    if not query.folder.is_dir():
        raise UserError(f"{query.folder}: {no_folder(query.folder)}. Name a folder of runs, e.g. logs/train.")
    return query


def _positive(text: str) -> int:
    if not (number := parse_count(text)):
        raise UserError(f"--top={text}: not a number of rows. Pass e.g. --top 20.")
    return number


def filter_runs(runs: Sequence[RunDirectory], query: argparse.Namespace) -> list[RunDirectory]:
    """Return the runs that pass every filter."""
    keys = {key for run in runs for key in run.values}
    for key in query.values:
        if runs and key not in keys:
            raise UserError(f"{key}: no run here was started with this override{did_you_mean(key, keys)}")
    return [
        run
        for run in runs
        if (not query.task or run.record.get("task_name") in query.task)
        and (not query.tag or not set(query.tag).isdisjoint(run.record.get("tags") or []))
        and all(key in run.values and _is_one_of(run.values[key], wanted) for key, wanted in query.values.items())
        and (not query.status or run.status in query.status)
    ]


def _is_one_of(value: str, accepted: Sequence[str]) -> bool:
    """Return whether a value is accepted; numbers are compared as numbers: `1e-3` is `0.001`."""
    number = as_number(value)
    return any(value == other or (number is not None and number == as_number(other)) for other in accepted)


def sort_runs(runs: Sequence[RunDirectory], key: str, order: str | None) -> list[RunDirectory]:
    """Return the runs sorted, by default the best first, runs without a value last."""

    def value(run: RunDirectory) -> Any:
        found = FIELDS[key](run) if key in FIELDS else run.metrics.get(key)
        return None if isinstance(found, float) and math.isnan(found) else found

    ascending = order == "asc" if order else key == "run" or is_minimized(key)
    having = sorted((run for run in runs if value(run) is not None), key=value, reverse=not ascending)
    return having + [run for run in runs if value(run) is None]


def _check_sort_key(key: str, runs: Sequence[RunDirectory]) -> None:
    known = [*FIELDS, *sorted({name for run in runs for name in run.metrics})]
    if runs and key not in known:
        raise UserError(f"--sort={key}: no run here has it; choose from {', '.join(known)}{did_you_mean(key, known)}")


def main(argv: Sequence[str]) -> int:
    """Print the table and return the exit code."""
    try:
        query = parse_args(argv)
        found = read_runs(find_runs(query.folder))
        # those of a proof are listed only where nothing else is, as in its own folder
        all_runs = [run for run in found if PROOF not in run.values] or found
        _check_sort_key(query.sort, all_runs)
        runs = sort_runs(filter_runs(all_runs, query), query.sort, query.order)
        metrics = metric_columns(all_runs, runs, query.metrics, query.sort)
        rows = (rows_of_sweeps if query.show == "sweeps" else rows_of_runs)(runs, metrics, query.folder)
        shown = rows[: query.top]
        write(shown, query.format, sys.stdout)
        sys.stdout.flush()
    except FulguriteError as error:
        return print_error(error)
    except BrokenPipeError:  # `| head` has closed the pipe: Python would report it once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if query.format == "table" and (shared := shared_overrides(shown)):
        sys.stderr.write(f"overrides of every row: {printable(' '.join(shared))}\n")
    proofs = f", without {len(found) - len(all_runs)} of prove-resume" if len(found) > len(all_runs) else ""
    rows_of, runs_of = counted(len(rows), query.show.removesuffix("s")), counted(len(all_runs), "run")
    sys.stderr.write(f"{len(shown)} of {rows_of} shown, {runs_of} below {query.folder}{proofs}\n")
    return 0
