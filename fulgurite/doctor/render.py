"""What the doctor found, as a person reads it, as Markdown and as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import format_bytes, format_latency, markdown_lines
from fulgurite.doctor.cluster.facts import FINDING, FINE, NOTE
from fulgurite.doctor.report import Report, machines

Rows = tuple[str, list[str], list[list[str]]]  # title, columns, cells
STYLES = {FINDING: "bold red", NOTE: "yellow", FINE: "green"}


def write(report: Report, asked: argparse.Namespace) -> None:
    """Print the tables, and write the files that were asked for.

    Raises:
        UserError: A file cannot be written, or matplotlib is missing.
    """
    _print(report)
    try:
        if asked.json:
            write_atomic(asked.json, json.dumps(as_json(report), indent=1) + "\n")
        if asked.markdown:
            write_atomic(asked.markdown, as_markdown(report))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}); name another file") from error
    if asked.plot and report.measured:
        from fulgurite.doctor.plot import draw

        draw(report, asked.plot)


def as_json(report: Report) -> dict[str, Any]:
    """Return everything; times in seconds, rates in GB/s of 10^9 bytes."""
    return {**asdict(report), "findings": [check.detail for check in report.findings]}


def tables(report: Report) -> list[Rows]:
    """Return the tables, empty ones left out."""
    facts = report.facts
    ranks = [
        [
            str(one.rank),
            one.host,
            str(one.local_rank),
            one.device,
            ", ".join(map(" ".join, zip(one.interfaces, one.addresses, strict=True))),
            str(one.pid),
        ]
        for one in facts
    ]
    found: list[Rows] = [
        (
            f"{machines(report)}, started by {facts[0].launcher}, backend {report.backend}",
            ["rank", "host", "local rank", "device", "interfaces", "pid"],
            ranks,
        ),
        ("Checks", ["", "check", ""], [[one.state, one.name, one.detail] for one in report.checks]),
    ]
    slow = {one.what: "slow" if one.serious else "slower" for one in report.slow}
    links = []
    for link in report.links:
        source, target = facts[link.source], facts[link.target]
        over = source.interfaces[link.interface]
        mark = slow.get(f"{source.name} -> {target.name} over {over}", "")
        links.append([source.name, target.name, over, format_latency(link.latency), shown_rate(link.rate), mark])
    found.append(("Links", ["from", "to", "over", "latency", "GB/s", ""], links))
    measured = [
        [
            one.collective,
            format_bytes(one.num_bytes),
            str(one.calls),
            format_latency(one.median),
            format_latency(one.p95),
            shown_rate(one.algorithm),
            shown_rate(one.bus),
            str(one.wrong),
        ]
        for one in report.measured
    ]
    columns = ["collective", "size", "calls", "median", "p95", "alg GB/s", "bus GB/s", "wrong"]
    found.append(("Collectives: times of the slowest rank", columns, measured))
    return [rows for rows in found if rows[2]]


def _print(report: Report) -> None:
    console = Console()
    for title, columns, cells in tables(report):
        table = Table(
            title=Text(title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        right = _numeric(columns, cells)
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for before, row in zip([None, *cells], cells, strict=False):
            if columns[0] == "collective" and before is not None and before[0] != row[0]:
                table.add_section()
            style = STYLES.get(row[0], "") if columns[0] == "" else "red" if row[-1] == "slow" else ""
            table.add_row(*map(Text, row), style="" if style == STYLES[FINE] else style)
        console.print(table)
    number = len(report.findings)
    console.print(
        "[green]nothing was found[/]" if not number else f"[bold red]{number} finding{'s' if number > 1 else ''}[/]"
    )


def _numeric(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> set[str]:
    """Return the columns of numbers, which stand at the right."""
    return {column for place, column in enumerate(columns) if column and all(row[place][:1].isdigit() for row in cells)}


def as_markdown(report: Report) -> str:
    """Return the tables in Markdown."""
    parts = []
    for title, columns, cells in tables(report):
        right = _numeric(columns, cells)
        parts.append(f"## {title}\n\n{''.join(markdown_lines(columns, cells, right))}")
    return "# Doctor\n\n" + "\n".join(parts)


def shown_rate(rate: float) -> str:
    """Return GB/s with three digits, never in powers of ten."""
    return f"{rate:.3g}" if rate >= 0.001 else f"{rate:.6f}"
