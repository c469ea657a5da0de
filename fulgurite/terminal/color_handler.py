"""Log messages on a terminal: errors red, warnings orange, lines broken between words."""

from __future__ import annotations

import logging
import os
import re
import shutil
import textwrap
from typing import Any, TextIO

# both have a contrast of at least 3.8 on black and on white
COLORS = {logging.ERROR: "1;38;5;196", logging.WARNING: "38;5;166"}


_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|min|h|[KMG]i?B|B|it/s|s/it|%)(?!\w))")


def has_colors(stream: TextIO) -> bool:
    """Return whether a stream shows colors: a terminal, or FORCE_COLOR is set; never with NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def colored(text: str, level: int, stream: TextIO) -> str:
    """Return a text in the color of a log level, where the stream shows colors."""
    color = next((code for limit, code in COLORS.items() if level >= limit), None)
    return f"\x1b[{color}m{text}\x1b[0m" if color and has_colors(stream) else text


def wrapped(line: str, indent: int = 2) -> str:
    """Return a line broken between words where the terminal would break it anywhere.

    Paths stay whole, and numbers with their units.

    `indent` is the number of spaces before further lines.
    """
    width = shutil.get_terminal_size().columns
    if len(line) <= width:
        return line
    joined = _BEFORE_UNIT.sub("\0", line)
    parts = textwrap.wrap(joined, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(parts).replace("\0", " ")


class ColorHandler(logging.StreamHandler[Any]):
    """Writes errors in red and warnings in orange on a terminal, and plain lines elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        text = super().format(record)
        if self.stream.isatty():
            if record.levelno == logging.INFO:
                text = text.replace("[INFO]", "", 1)  # leaves room for the message
            indent = len("[12:00:00] ")  # below the first word
            text = "\n".join(wrapped(line, indent) for line in text.split("\n"))
        return colored(text, record.levelno, self.stream)
