"""Print the table of a sweep to the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fulgurite.core.formatting import SPREAD, Rows, print_table, short_path

REPORT = "python -m fulgurite report"
MAX_VALUES = 30  # characters of the values of a sweep before they are folded
PADDING = 3  # characters around a column of a table


def show_sweep(
    rows: Rows, names: Sequence[str], folder: Path, unfinished: Sequence[str], *, has_best: bool = False
) -> None:
    """Print a row of cells for each set of values: values, jobs, each metric.

    Metrics that do not fit the terminal go into further tables. `has_best` marks the first row.
    """
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(name), *(len(row[column]) for row in rows)) for column, name in enumerate(names, start=2)]
    title = Text(f"Sweep: {SPREAD} over jobs")
    for columns in _columns_that_fit(rows, widths):
        table = Table()
        if has_best:
            table.add_column("", no_wrap=True)
        table.add_column("values", overflow="fold", ratio=1)
        for name in ("jobs", *(names[column] for column in columns)):
            table.add_column(Text(name), no_wrap=True)
        for number, row in enumerate(rows):
            mark = ["" if number else "best"] if has_best else []
            cells = [*mark, row[0], row[1], *(row[column + 2] for column in columns)]
            table.add_row(*map(Text, cells), style="bold" if has_best and not number else None)
        print_table(table, above=title)
        title = Text("more metrics")
    print_table(None, *unfinished, f"sweep    {short_path(folder)}", f"report   {REPORT} {short_path(folder)}")


def _columns_that_fit(rows: Rows, widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the numbers of the metrics in each table, at least one a table."""
    from rich.console import Console

    values = min(MAX_VALUES, max([len("values"), *(len(row[0]) for row in rows)]))
    jobs = max([len("jobs"), *(len(row[1]) for row in rows)])
    room = left = Console().width - sum(width + PADDING for width in (len("best"), values, jobs)) - 1
    columns: list[int] = []
    for column, width in enumerate(widths):
        left -= width + PADDING
        if left < 0 and columns:
            yield columns
            columns, left = [], room - width - PADDING
        columns.append(column)
    if columns or not widths:
        yield columns
