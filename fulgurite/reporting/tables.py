"""Write rows of runs or sweeps as an aligned table, JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from fulgurite.config.metric_names import is_minimized, is_of_validation
from fulgurite.core.errors import UserError, did_you_mean, printable
from fulgurite.core.formatting import format_duration_short, format_number, markdown_lines
from fulgurite.core.redact import mask_override
from fulgurite.runs.run_directory import RunDirectory

FORMATS = ("table", "json", "csv", "markdown")
TEXTS = ("task", "start (UTC)", "tags", "overrides", "reason", "states")  # below the numbers on a narrow terminal
MAX_WIDTH = 80  # characters of a cell in a table
Row = dict[str, Any]


def metric_columns(
    all_runs: Sequence[RunDirectory], shown: Sequence[RunDirectory], wanted: Sequence[str], sorted_by: str
) -> list[str]:
    """Return the metrics that get a column: the wanted, else test, else validation metrics.

    The sort key gets a column too when it is a metric.
    """
    known = {name for run in all_runs for name in run.metrics}
    for name in wanted:
        if all_runs and name not in known:
            raise UserError(f"--metrics={name}: no run here has it{did_you_mean(name, known)}")
    names = sorted({name for run in shown for name in run.metrics})
    tests = [name for name in names if re.match(r"test([^a-z]|$)", name, re.IGNORECASE)]
    columns = list(wanted) or tests or [name for name in names if is_of_validation(name)] or names
    for run in () if wanted else shown:  # one that logs none of them, under names of its own
        if run.metrics and run.metrics.keys().isdisjoint(columns):
            columns += [name for name in sorted(run.metrics) if is_of_validation(name)]
    return [sorted_by, *columns] if sorted_by in known and sorted_by not in columns else columns


def rows_of_runs(runs: Sequence[RunDirectory], metrics: Sequence[str], below: str | os.PathLike[str]) -> list[Row]:
    """Return a row for each run, with its path relative to the folder `below`."""
    root = os.fspath(below).rstrip(os.sep) + os.sep
    return [
        {
            "run": str(run.folder).removeprefix(root),
            "status": run.status,
            "task": run.record.get("task_name"),
            "start": run.record.get("start"),
            "seconds": run.seconds,
            "tags": run.record.get("tags") or [],
            "overrides": [mask_override(override) for override in run.overrides],  # as given, for JSON
            **{name: run.metrics.get(name) for name in metrics},
            "reason": run.reason,
        }
        for run in runs
    ]


def rows_of_sweeps(runs: Sequence[RunDirectory], metrics: Sequence[str], below: str | os.PathLike[str]) -> list[Row]:
    """Return a row for each sweep of the runs, with the best of each metric."""
    root = os.fspath(below).rstrip(os.sep) + os.sep
    sweeps: dict[str, list[RunDirectory]] = {}
    for run in runs:
        if run.record.get("sweep"):
            sweeps.setdefault(str(run.folder.parent), []).append(run)
    return [
        {
            "sweep": folder.removeprefix(root),
            "task": jobs[0].record.get("task_name"),
            "start": min(str(job.record.get("start")) for job in jobs),
            "jobs": len(jobs),
            "states": ", ".join(f"{n} {status}" for status, n in Counter(job.status for job in jobs).most_common()),
            **{f"best {name}": _best(jobs, name) for name in metrics},
        }
        for folder, jobs in sweeps.items()
    ]


def _best(jobs: Sequence[RunDirectory], name: str) -> float | None:
    values = [job.metrics[name] for job in jobs if name in job.metrics and not math.isnan(job.metrics[name])]
    return (min if is_minimized(name) else max)(values, default=None)


def write(rows: Sequence[Row], file_format: str, out: TextIO) -> None:
    """Write rows in one of `FORMATS`."""
    if file_format == "table":
        _write_table(rows, out)
    elif file_format == "markdown":
        out.writelines(markdown_lines(*_cells(rows)))
    elif file_format == "json":
        json.dump([{name: _finite(value) for name, value in row.items()} for row in rows], out, indent=1)
        out.write("\n")
    elif rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _joined(value) for name, value in row.items()} for row in rows)


def _finite(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _joined(value: Any) -> Any:
    value = " ".join(map(str, value)) if isinstance(value, list) else value
    return printable(value) if isinstance(value, str) else value


def _write_table(rows: Sequence[Row], out: TextIO) -> None:
    """Write aligned columns, without rich: it takes half a minute for ten thousand rows."""
    names, cells = _cells(rows, shared_overrides(rows))
    short = [[cell if len(cell) <= MAX_WIDTH else cell[: MAX_WIDTH - 1] + "…" for cell in line[1:]] for line in cells]
    lines = [names, *([line[0], *rest] for line, rest in zip(cells, short, strict=True))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    columns = shutil.get_terminal_size().columns
    if out.isatty() and sum(widths) + 2 * len(widths) - 2 > columns:
        _write_narrow(lines, widths, columns, out)
    else:
        out.writelines("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def _write_narrow(lines: Sequence[Sequence[str]], widths: Sequence[int], columns: int, out: TextIO) -> None:
    """Write each row as a line of its numbers, and its texts below."""
    is_text = [name in TEXTS for name in lines[0]]
    below = textwrap.TextWrapper(columns, initial_indent="    ", subsequent_indent="    ")
    below.break_long_words = below.break_on_hyphens = False  # overrides are copied from here
    for line in lines:
        cells = [str.ljust(cell, width) for cell, width, text in zip(line, widths, is_text, strict=True) if not text]
        texts = "  ".join(cell for cell, text in zip(line, is_text, strict=True) if text and cell != "-")
        out.write("  ".join(cells).rstrip() + "\n")
        out.writelines(f"{part}\n" for part in below.wrap(texts))


def shared_overrides(rows: Sequence[Row]) -> list[str]:
    """Return the overrides that all of several rows share, which the table leaves out."""
    if len(rows) < 2:
        return []
    shared = set.intersection(*(set(row.get("overrides", ())) for row in rows))
    return [override for override in rows[0].get("overrides", ()) if override in shared]


def _cells(rows: Sequence[Row], left_out: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the columns that are not empty, and the text of every cell without some overrides."""
    names = [name for name in (rows[0] if rows else {}) if any(row[name] not in (None, "", []) for row in rows)]
    titles = {"start": "start (UTC)", "seconds": "took"}
    hidden = set(left_out)

    def text(name: str, value: Any) -> str:
        return _shown(name, [item for item in value if item not in hidden] if name == "overrides" else value)

    return [titles.get(name, name) for name in names], [[text(name, row[name]) for name in names] for row in rows]


def _shown(name: str, value: Any) -> str:
    if value in (None, []):
        return "-"
    if name == "start":
        return printable(str(value)[:16].replace("T", " "))
    if name == "seconds":
        return format_duration_short(value)
    if isinstance(value, float):
        return format_number(value)
    return " ".join(str(_joined(value)).split())
