"""The commands of `python -m fulgurite` report errors as an entry point does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import pytest

from fulgurite.__main__ import COMMANDS, main
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import project_root
from fulgurite.core.redact import register_secret
from tests.support.fake_sweep import leave_sweep
from tests.support.project import ROOT


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that no project holds, as that of an installed wheel."""
    monkeypatch.delenv("PROJECT_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    project_root.cache_clear()
    yield tmp_path
    project_root.cache_clear()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_project(command: str, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m fulgurite {command} ")


def test_help_is_that_of_the_named_command_and_names_the_program_as_it_was_started(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["help", "runs"]) == 0
    assert capfd.readouterr().out.startswith("usage: python -m fulgurite runs ")
    code = "import sys; sys.argv = ['/bin/fulgurite', 'help'%s]; from fulgurite.__main__ import console; console()"
    for arguments, usage in {"": "COMMAND", ", 'runs'": "runs"}.items():
        subprocess.run([sys.executable, "-c", code % arguments], cwd=ROOT, check=True)
        assert capfd.readouterr().out.startswith(f"usage: fulgurite {usage} ")


def test_a_folder_is_listed_and_analysed_without_a_project(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = leave_sweep(outside / "sweep")
    assert main(["runs", str(sweep), "--show", "sweeps"]) == 0
    assert "19 done, 1 failed" in capsys.readouterr().out
    assert main(["report", "sweep"]) == 0
    assert (sweep / "report.html").is_file()
    # its overrides may choose options of groups, which are those of the project
    assert f"warning: {sweep}/best.yaml: not written. {outside}: no folder above it holds" in capsys.readouterr().err


def test_the_doctor_asks_for_a_project_only_with_overrides(
    outside: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from fulgurite.doctor.cli import parse_args

    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "FATAL")  # the doctor sets it: this restores it
    assert parse_args([]).folder == outside
    assert main(["doctor", "--no-drills", "seed=1"]) == 2
    assert f"{outside}: no folder above it holds .project-root" in capfd.readouterr().err


@pytest.mark.parametrize("command", [["runs"], ["live", "get"], ["explain"], ["schema"], ["prove-resume"]])
def test_what_needs_a_project_says_so(command: list[str], outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    assert capsys.readouterr().err.startswith(f"error: {outside}: no folder above it holds .project-root. Start from")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_finding_has_its_own_line_without_secrets(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_secret("canary-of-commands")

    def refuse(argv: Sequence[str]) -> None:
        raise ConfigError(["a=1: is wrong. Set 2.", "b=canary-of-commands: is wrong. Set 3."])

    module = import_module(COMMANDS[command][0])
    monkeypatch.setattr(module, "parse_args", refuse)
    assert module.main([]) == 2
    assert capsys.readouterr().err == "error: a=1: is wrong. Set 2.\nerror: b=***: is wrong. Set 3.\n"
