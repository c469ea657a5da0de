"""Log messages on a terminal and in a pipe."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from fulgurite.core.errors import UserError
from fulgurite.engine.outcome import print_error
from fulgurite.terminal.color_handler import ColorHandler, colored
from tests.support.pseudo_terminal import PseudoTerminal

RED, ORANGE = "\x1b[1;38;5;196m", "\x1b[38;5;166m"


def _write(handler: logging.Handler, level: int, message: str) -> None:
    handler.setFormatter(logging.Formatter("[12:00:00][%(levelname)s] %(message)s"))
    handler.handle(logging.LogRecord("name", level, __file__, 1, message, (), None))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_a_terminal_shows_errors_red_and_breaks_lines_between_words() -> None:
    path = "/a/path/of/checkpoint"
    with PseudoTerminal(40) as terminal:
        handler = ColorHandler(sys.stderr)
        _write(handler, logging.ERROR, "bad")
        _write(handler, logging.WARNING, "odd")
        _write(handler, logging.INFO, f"the checkpoint is in the folder {path}")
        print_error(UserError("no such key"))
    assert terminal.written.replace("\r\n", "\n") == (
        f"{RED}[12:00:00][ERROR] bad\x1b[0m\n"
        f"{ORANGE}[12:00:00][WARNING] odd\x1b[0m\n"
        "[12:00:00] the checkpoint is in the\n"
        f"           folder {path}\n"
        f"{RED}error: no such key\x1b[0m\n"
    )


def test_a_pipe_gets_plain_lines() -> None:
    pipe = io.StringIO()
    _write(ColorHandler(pipe), logging.ERROR, "bad " * 50)
    assert pipe.getvalue() == f"[12:00:00][ERROR] {'bad ' * 50}\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    with PseudoTerminal(80):
        assert colored("x", logging.ERROR, sys.stderr) != "x"
        monkeypatch.setenv("NO_COLOR", "1")
        assert colored("x", logging.ERROR, sys.stderr) == "x"
