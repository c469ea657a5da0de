"""Run a command in a pseudo-terminal, and read the screen that it leaves."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

# what a program sends to a terminal: a control sequence, a control character or text
TOKENS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n\t])|([^\x1b\r\n\t]+)|\x1b.")


def _open(width: int) -> tuple[int, int]:
    """Return both ends of a terminal of 50 lines: the one to read from, and that of the program."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    return ours, theirs


def _chunks(ours: int) -> Iterator[bytes]:
    """Yield what the program writes until it closes the terminal."""
    with suppress(OSError):  # Linux, once it is closed
        while chunk := os.read(ours, 1 << 16):
            yield chunk


def run_in_terminal(
    command: Sequence[str], width: int, *, cwd: Path, env: Mapping[str, str] | None = None, interrupt_at: str = ""
) -> tuple[int, str]:
    """Run a command in a terminal of `width` columns, and return its exit code and everything that it wrote.

    Args:
        command: Program and arguments.
        width: Columns of the terminal, which has 50 lines.
        cwd: Working directory.
        env: Variables of the command; None takes those of this process.
        interrupt_at: Text on whose appearance the command gets SIGINT, once.
    """
    ours, theirs = _open(width)
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    for chunk in _chunks(ours):
        written += chunk
        if interrupt_at and interrupt_at.encode() in written:
            interrupt_at = ""
            process.send_signal(signal.SIGINT)
    os.close(ours)
    return process.wait(), written.decode(errors="replace")


def screen(written: str, width: int) -> list[str]:
    """Return the lines that a terminal shows in the end, with the codes of their colors.

    Knows carriage returns, line feeds, cursor movements up and down, and erased lines.
    """
    lines: list[list[str]] = [[]]  # one cell for each column: codes and a character
    row = column = 0
    style = ""
    for match in TOKENS.finditer(written):
        numbers, command, control, text = match.groups()
        if command == "m":
            style = "" if numbers in {"", "0"} else f"{style}\x1b[{numbers}m"
        elif command in {"A", "B"}:
            row = max(0, row + (int(numbers or 1) if command == "B" else -int(numbers or 1)))
        elif command == "K":
            del lines[row][0 if numbers == "2" else column :]
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
        for character in (text or "") if control != "\t" else " " * (8 - column % 8):
            if column == width:
                row, column = row + 1, 0
            while len(lines) <= row:
                lines.append([])
            cells = lines[row]
            cells += [" "] * (column - len(cells))
            cells[column : column + 1] = [f"{style}{character}\x1b[0m" if style else character]
            column += 1
        while len(lines) <= row:
            lines.append([])
    return ["".join(cells).rstrip() for cells in lines]


def plain(line: str) -> str:
    """Return a line without the codes of its colors."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)


class PseudoTerminal:
    """Standard output and standard error of this process, as a terminal.

    Attributes:
        written: Everything that the process wrote, once it is closed.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.written = ""

    def __enter__(self) -> PseudoTerminal:
        self._ours, theirs = _open(self.width)
        self._parts: list[bytes] = []
        self._reader = Thread(target=lambda: self._parts.extend(_chunks(self._ours)))
        self._reader.start()
        self._stream = os.fdopen(theirs, "w", encoding="utf-8", buffering=1)
        self._before = sys.stdout, sys.stderr, os.environ.get("COLUMNS"), os.environ.get("TERM")
        sys.stdout = sys.stderr = self._stream
        os.environ.update(COLUMNS=str(self.width), TERM="xterm-256color")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr, columns, term = self._before
        for name, value in (("COLUMNS", columns), ("TERM", term)):
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        self._stream.close()
        self._reader.join()
        os.close(self._ours)
        self.written = b"".join(self._parts).decode()

    @contextmanager
    def logging(self, name: str) -> Iterator[None]:
        """Write the messages of a logger to the terminal, through a handler of its own."""
        logger, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
