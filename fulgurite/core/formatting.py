"""Format bytes, durations and tables, and print the tables of a run or a sweep to the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# config groups that hardly differ between runs
HIDDEN = ("hydra", "extras", "resilience", "distributed", "paths", "resume", "sweep")

Rows = Sequence[Sequence[str]]
SPREAD = "mean ± half the 95 % interval"  # the meaning of ± in every table and report
_AFTER, _SLASHES = r"(?<=\\)", r"\\{1,16}"  # bounded: a text of backslashes would take cubic time


def format_number(value: float) -> str:
    """Return a number with four significant digits, as every table and message shows it: `0.9712`, `1.7e-05`."""
    return f"{value:.4g}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: `1 job`, `2 jobs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def parse_count(text: str) -> int | None:
    """Return the number that ASCII digits give; None for other text, and for more than 18 digits.

    `str.isdigit` is true for "²" and for 5,000 digits, which `int` refuses.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def format_spread(mean: float, half_width: float | None) -> str:
    """Return a mean over seeds, and half its 95 % interval if it is known: `0.951 ± 0.012`."""
    return format_number(mean) + (f" ± {half_width:.2g}" if half_width is not None else "")


def format_bytes(num_bytes: float, *, rounded: bool = False) -> str:
    """Return a size with its binary unit: `12 B`, `64 KiB`, `1.5 GiB`.

    Four digits are kept; `rounded` keeps whole units, and one decimal of GiB.
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            number = num_bytes / size
            return f"{number:.{int(unit == 'GiB')}f} {unit}" if rounded else f"{number:.4g} {unit}"
    return f"{num_bytes:.0f} B"


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: `4.2 s`, `40 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def format_duration_short(seconds: float) -> str:
    """Return a duration in its largest unit: `42 s`, `3 min`, `1.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_clock(seconds: float) -> str:
    """Return a duration as a clock shows it: `0:42`, `12:05`, `1:20:33`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def markdown_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Collection[str] = ()
) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    rule = ["---:" if column in right_aligned else "---" for column in columns]
    for line in (columns, rule, *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"


def short_path(path: str | Path) -> str:
    """Return a path relative to the working directory if it is inside, so that it can be copied."""
    found = Path(path).absolute()
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else str(found)


def print_table(table: Table | None, *lines: str, above: Text | None = None) -> None:
    """Print a title, a table, then lines without markup and wrapping, so that paths can be copied."""
    from rich.console import Console

    console = Console()
    for shown in (above, table):
        if shown is not None:
            console.print(shown)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_config(masked: Mapping[str, Any]) -> None:
    """Print a resolved config, with `***` for its secrets, as YAML."""
    from omegaconf import OmegaConf
    from rich.console import Console
    from rich.syntax import Syntax

    shown = {key: value for key, value in masked.items() if key not in HIDDEN and value is not None}
    text = OmegaConf.to_yaml(OmegaConf.create(shown)).rstrip()
    Console().print(Syntax(text, "yaml", theme="ansi_light", background_color="default", word_wrap=True))


def show_plan(
    rows: Rows,
    shared: Sequence[str],
    columns: Sequence[str] = ("job", "values", "state"),
    title: str | None = None,
) -> None:
    """Print the jobs that a sweep would run, and the overrides that all jobs share."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or f"Sweep: {counted(len(rows), 'job')}")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    print_table(table, f"all      {' '.join(shared) or '(nothing else)'}")


def pattern_as_written(value: str) -> str:
    """Return the pattern of a value as JSON, YAML, Python, URLs, HTML, CSV and shells write it, also inside each other.

    White space may be where a terminal or YAML breaks the line.
    """
    space = r"(?:[\s\\+]|(?<=\\)[nrt]|%20|%0[9AD])+"
    pieces = re.findall(r"\s+|\\+|'+|\"+|.", value, re.DOTALL)
    return "".join(space if piece.isspace() else _character(piece[0], len(piece)) for piece in pieces)


@cache
def _character(one: str, count: int) -> str:
    """Return the pattern of a character and of its escapes; a count is that of backslashes or quotes."""
    if one == "\\":
        return rf"(?:\\{{{count},{16 * count}}}|(?i:(?:%5c|\\{{0,16}}(?:x5c|u005c|&#92;)){{{count}}}))"
    if one.isascii() and (one.isalnum() or one in "_-"):
        return one
    code, units = ord(one), one.encode("utf-16-be", "surrogatepass").hex()
    utf8 = one.encode("utf-8", "surrogatepass")
    escapes = [
        _AFTER + _SLASHES.join(f"u{units[start : start + 4]}" for start in range(0, len(units), 4)),
        _AFTER + _SLASHES.join(f"x{byte:02x}" for byte in utf8),
        "".join(f"%{byte:02x}" for byte in utf8),
        rf"{_AFTER}U{code:08x}|&#{code};|&#x{code:x};",
        *([re.escape(entity)] if (entity := html.escape(one)) != one else []),  # the same form twice: exponential time
        *([f"{_AFTER}x{code:02x}"] if code < 256 else []),
    ]
    of_shells = r"|'(?:\"'\"'|\\+'')" if one == "'" else ""
    times = f"{{{count},{2 * count}}}" if one in "'\"" else ""  # YAML and CSV write a quote twice
    return rf"(?:\\{{0,16}}(?:(?i:{'|'.join(escapes)}){of_shells}|{re.escape(one)})(?:\\\n\s*)?){times}"
