"""Render the doctor's report as tables, Markdown and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import format_bytes, markdown_lines
from fulgurite.doctor.bench.links import link_name
from fulgurite.doctor.cluster.options import Options
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, NOTE
from fulgurite.doctor.report import Report, describe_machines

TableData = tuple[str, list[str], list[list[str]]]  # title, columns, cells
STYLES = {FINDING: "bold red", NOTE: "yellow", FINE: "green"}


def write_report(report: Report, args: Options) -> None:
    """Print tables, or JSON for `--json` without a file, and write requested files."""
    text = json.dumps(to_json(report), indent=1) + "\n"
    is_json_to_stdout = args.json is not None and str(args.json) == "-"
    if is_json_to_stdout:
        sys.stdout.write(text)
    else:
        print_tables(report)
    try:
        if args.json and not is_json_to_stdout:
            write_atomic(args.json, text)
        if args.markdown:
            write_atomic(args.markdown, to_markdown(report))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}). Name another file.") from error
    if args.plot and report.measured:
        from fulgurite.doctor.plot import draw_plot

        draw_plot(report, args.plot)


def to_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values, in seconds and in GB/s of 10^9 bytes."""
    return {**asdict(report), "findings": [check.detail for check in report.findings]}


def build_tables(report: Report) -> list[TableData]:
    """Return the tables that have rows."""
    ranks: list[list[object]] = []
    for one in report.facts:
        interfaces = ", ".join(map(" ".join, zip(one.interfaces, one.addresses, strict=True)))
        ranks.append([one.rank, one.host, one.local_rank, one.device, interfaces, one.pid])
    slow = {one.name: "slow" if one.is_finding else "slower" for one in report.slow}
    links: list[list[object]] = []
    for link in report.links:
        source, target = report.facts[link.source], report.facts[link.target]
        cells = [source.name, target.name, source.interfaces[link.interface], _format_latency(link.latency)]
        links.append([*cells, format_rate(link.rate), slow.get(link_name(link, report.facts), "")])
    measured: list[list[object]] = []
    for result in report.measured:
        times = _format_latency(result.median), _format_latency(result.p95)
        rates = format_rate(result.algorithm), format_rate(result.bus)
        size = format_bytes(result.num_bytes)
        measured.append([result.collective, size, result.calls, *times, *rates, result.wrong])
    launcher = report.facts[0].launcher
    starter = "without a launcher" if launcher == "alone" else f"started by {launcher}"
    title = f"{describe_machines(report)}, {starter}, backend {report.backend}"
    of_collectives = ["collective", "size", "calls", "median", "p95", "alg GB/s", "bus GB/s", "wrong"]
    tables: list[tuple[str, list[str], list[list[object]]]] = [
        (title, ["rank", "host", "local rank", "device", "interfaces", "pid"], ranks),
        ("Checks", ["", "check", ""], [[one.state, one.name, one.detail] for one in report.checks]),
        ("Links", ["from", "to", "over", "latency", "GB/s", ""], links),
        ("Collectives: times of the slowest rank", of_collectives, measured),
    ]
    return [(title, columns, [list(map(str, row)) for row in rows]) for title, columns, rows in tables if rows]


def print_tables(report: Report) -> None:
    """Print the tables and the number of findings."""
    console = Console()
    for title, columns, cells in build_tables(report):
        table = Table(
            title=Text(title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        numeric = _numeric_columns(columns, cells)
        for column in columns:
            table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
        for previous, row in zip([None, *cells], cells, strict=False):
            if columns[0] == "collective" and previous is not None and previous[0] != row[0]:
                table.add_section()
            style = STYLES.get(row[0], "") if columns[0] == "" else "red" if row[-1] == "slow" else ""
            table.add_row(*map(Text, row), style="" if style == STYLES[FINE] else style)
        console.print(table)
    count = len(report.findings)
    console.print(f"[bold red]{count} finding{'s' if count > 1 else ''}[/]" if count else "[green]no findings[/]")


def _numeric_columns(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> set[str]:
    return {column for index, column in enumerate(columns) if column and all(row[index][:1].isdigit() for row in cells)}


def to_markdown(report: Report) -> str:
    """Return the tables in Markdown."""
    sections = []
    for title, columns, cells in build_tables(report):
        numeric = _numeric_columns(columns, cells)
        sections.append(f"## {title}\n\n{''.join(markdown_lines(columns, cells, numeric))}")
    return "# Doctor\n\n" + "\n".join(sections)


def format_rate(rate: float) -> str:
    """Return GB/s with three digits and without an exponent."""
    return f"{rate:.3g}" if rate >= 0.001 else f"{rate:.6f}"


def _format_latency(seconds: float) -> str:
    """Return a short duration with three digits: `85.2 µs`, `1.31 ms`, `2.5 s`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
