"""`os._exit` in user code does not pass for the end of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fulgurite.shutdown.process_exit import reported_exit
from tests.support.cli import only_run, read_json, run_cli

EXIT = "+callbacks.exits={_target_: tests.support.shapes.python_state.Exits, code: %d}"


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(("asked", "code"), [(0, 1), (5, 5)])
def test_an_exit_is_reported_and_is_no_success(asked: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(status: int) -> NoReturn:
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)
    reports: list[int] = []
    with reported_exit(reports.append), pytest.raises(Ended) as ended:
        os._exit(asked)
    assert (reports, ended.value.args) == ([asked], (code,))
    assert os._exit is end


def test_a_report_that_fails_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(status: int) -> NoReturn:
        raise Ended(status)

    def report(status: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "_exit", end)
    with reported_exit(report), pytest.raises(Ended):
        os._exit(0)


def test_a_child_process_exits_as_it_asks_to() -> None:
    reports: list[int] = []
    with reported_exit(reports.append):
        if (child := os.fork()) == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reports == []


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 7])
def test_a_run_that_exits_at_once_is_failed(code: int, tmp_path: Path) -> None:
    done = run_cli("train", "experiment=example", "extras.allowed_targets=[tests]", EXIT % code, logs=tmp_path)
    record: Any = read_json(only_run(tmp_path) / "run.json")
    assert done.returncode == (code or 1), done.stderr
    assert done.stderr.count(f"the program called os._exit with code {code}") == 1
    assert (record["status"], record["exit_code"]) == ("failed", code or 1)
