"""Print the results of a benchmark, and write them with all samples to Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fulgurite.core.files import write_atomic
from fulgurite.runs.provenance import git_state
from scripts.bench.measure import ROOT, Row

PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "numpy", "pillow")
COLUMNS = ("promise", "what", "median", "bar", "verdict", "samples")


def describe_machine(**more: Any) -> dict[str, Any]:
    """Return machine, versions, commit and command of a benchmark.

    Args:
        more: Settings of this benchmark.
    """
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "git": git_state(ROOT),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()),  # of 1, 5 and 15 minutes
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        **more,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def print_report(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="Benchmark")
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="right" if name in {"median", "bar"} else "left")
    for row in rows:
        *cells, _ = _cells(row)
        table.add_row(*cells, style=None if row.kept is not False else "red")
    Console().print(table)


def save_report(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> Path:
    """Write `<date>.json` and `<date>.md` and return the latter; the second of a day is `<date>-2`.

    Args:
        folder: Created if missing.
        rows: The measurements.
        about: As `describe_machine` returns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    day, number = str(about["date"])[:10], 1
    while (folder / f"{_name(day, number)}.json").exists():
        number += 1
    path = folder / f"{_name(day, number)}.md"
    content = [
        asdict(row) | {"bar": str(row.bar) if row.bar else None, "value": row.value, "kept": row.kept} for row in rows
    ]
    write_atomic(path.with_suffix(".json"), json.dumps({"about": about, "rows": content}, indent=2) + "\n")
    write_atomic(path, to_markdown(rows, about))
    return path


def _name(day: str, number: int) -> str:
    return day if number == 1 else f"{day}-{number}"


def to_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Return the whole report as Markdown."""
    lines = [f"# Benchmark of {about['date']}", ""]
    lines += [f"- {name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in about.items()]
    lines += ["", *_table(COLUMNS, [_cells(row) for row in rows]), "", "## Measured values", ""]
    parts = [(row.key, row.what, name, _numbers(values)) for row in rows for name, values in row.parts.items()]
    return "\n".join([*lines, *_table(("promise", "what", "part", "values"), parts)]) + "\n"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "kept", False: "MISSED", None: ""}[row.kept]
    return row.key, row.what, f"{row.value:.3g} {row.unit}".strip(), str(row.bar or ""), verdict, _numbers(row.samples)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
