"""Log messages on a terminal and in a pipe."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.engine.outcome import print_error
from fulgurite.terminal.color_handler import COLORS, ColorHandler, colored
from tests.support.project import ROOT
from tests.support.pseudo_terminal import PseudoTerminal, run_in_terminal, screen

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


def _luminance(number: int) -> float:
    """Return the relative luminance of a color of the cube that terminals with 256 colors have."""
    levels = (0, 95, 135, 175, 215, 255)
    red, green, blue = (levels[(number - 16) // step % 6] / 255 for step in (36, 6, 1))
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("level", COLORS)
def test_colors_are_readable_on_dark_and_light_grounds(level: int) -> None:
    own = _luminance(int(COLORS[level].rpartition(";")[2])) + 0.05
    assert own / 0.05 > 3.8, "on black"
    assert 1.05 / own > 3.8, "on white"


def test_a_number_and_its_unit_stay_on_one_line() -> None:
    start = "epoch 12/99  train/loss 0.1234"
    for filler in range(12):
        line = f"{start}{'x' * filler}  1.5 s  7.25 MB"
        with PseudoTerminal(41) as terminal:
            _write(ColorHandler(sys.stderr), logging.INFO, line)
        shown = terminal.written
        assert "1.5 s" in shown
        assert "7.25 MB" in shown
        assert all(len(part) <= 41 for part in shown.splitlines())


def test_the_answer_to_ctrl_c_takes_the_line_of_the_bar(tmp_path: Path) -> None:
    script = tmp_path / "bar.py"
    script.write_text(BAR)
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    code, written = run_in_terminal([sys.executable, str(script)], 80, cwd=ROOT, env=environment)
    assert code == 0, written
    assert [line for line in screen(written, 80) if line] == [
        "SIGINT: stopping at the next step that can be saved. Send it again to stop at",
        "  once.",
    ]


BAR = """
import os, signal, sys

from rich.text import Text

from fulgurite.shutdown.signals import signal_handler
from fulgurite.terminal.status_line import StatusLine

handler, line = signal_handler(), StatusLine()
handler.install()
handler.training = True
line.open()
line.draw(Text("epoch 0/1 " + 100 * "-"))
os.write(2, b"^C")  # as a terminal shows it
os.kill(os.getpid(), signal.SIGINT)
line.close()
handler.restore()
"""


def test_a_pipe_gets_plain_lines() -> None:
    pipe = io.StringIO()
    _write(ColorHandler(pipe), logging.ERROR, "bad " * 50)
    assert pipe.getvalue() == f"[12:00:00][ERROR] {'bad ' * 50}\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    with PseudoTerminal(80):
        assert colored("x", logging.ERROR, sys.stderr) != "x"
        monkeypatch.setenv("NO_COLOR", "1")
        assert colored("x", logging.ERROR, sys.stderr) == "x"
