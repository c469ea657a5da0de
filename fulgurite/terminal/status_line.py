"""A terminal shared by a progress bar, log messages and prints: one status line, under everything else."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.text import Text

ERASE_LINE = "\r\x1b[2K"
ECHO = len("^C")  # what a terminal shows for Ctrl-C: it stays on the line, so that it is erased with it


class StatusLine:
    """The last line of a terminal, which prints and log messages of the process appear above.

    While it is open, `sys.stdout`, `sys.stderr` and the handlers of all loggers write through it. Nothing draws in
    the background: a debugger that prompts has the terminal to itself.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self.stream: TextIO = sys.stderr
        self.console = Console(file=self.stream)
        self._replaced: list[tuple[Any, str, Any]] = []  # owner, attribute, the stream before
        self._is_drawn = False
        self._is_at_line_start = True
        self._lock, self._process = threading.RLock(), os.getpid()

    @property
    def width(self) -> int:
        """Characters that fit the line."""
        return self.console.width - 1 - ECHO

    def open(self) -> None:
        """Let everything that this process prints appear above the line."""
        if self._replaced:
            return
        above: dict[int, TextIO] = {}  # one for each stream
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream.isatty():
                above[id(stream)] = cast("TextIO", _AboveStatusLine(stream, self))
                self._replace(sys, name, above[id(stream)])
        for handler in _handlers():
            if isinstance(handler, logging.StreamHandler) and id(handler.stream) in above:
                self._replace(handler, "stream", above[id(handler.stream)])

    def close(self) -> None:
        """Erase the line, and let prints go to the terminal directly."""
        self.clear()
        for owner, name, stream in reversed(self._replaced):
            if isinstance(getattr(owner, name), _AboveStatusLine):  # else the user's code has replaced it
                setattr(owner, name, stream)
        self._replaced.clear()

    def draw(self, text: Text) -> None:
        """Draw the line, unless a print without a newline or a debugger has the terminal."""
        if not self._is_at_line_start or not self._replaced or is_debugging():
            return
        text.truncate(self.width)
        with self._locked():
            with self.console.capture() as captured:
                self.console.print(text, end="", no_wrap=True, overflow="crop", highlight=False)
            self.stream.write(ERASE_LINE + captured.get())
            self.stream.flush()
            self._is_drawn = True

    def clear(self) -> None:
        """Erase the line if it is drawn."""
        with self._locked():
            if self._is_drawn:
                self.stream.write(ERASE_LINE)
                self.stream.flush()
                self._is_drawn = False

    def write(self, stream: TextIO, text: str) -> int:
        """Write a text to one of the streams, above the line."""
        with self._locked():
            self.clear()
            if text:
                self._is_at_line_start = text.endswith("\n")
            return stream.write(text)

    def _replace(self, owner: Any, name: str, stream: TextIO) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, stream)

    def _locked(self) -> threading.RLock:  # type: ignore[valid-type, unused-ignore]
        if self._process != os.getpid():  # a thread of the parent may have held the lock at the fork
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock


class _AboveStatusLine:
    """A stream whose text appears above a status line."""

    def __init__(self, stream: TextIO, line: StatusLine) -> None:
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        return self._line.write(self._stream, text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._line.clear()  # `input` flushes before it prompts
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _handlers() -> Iterator[logging.Handler]:
    """Yield the handlers of the root logger and of every other one, such as Lightning's own."""
    for logger in (logging.getLogger(), *logging.Logger.manager.loggerDict.values()):
        yield from getattr(logger, "handlers", ())


def is_debugging() -> bool:
    """Return whether a debugger steps through this thread, as `breakpoint()` starts one."""
    if sys.gettrace() is not None:
        return True
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


def shows_status_line() -> bool:
    """Return whether standard error is a terminal on which a line can be redrawn."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
