"""`make` makes .venv when it is missing or out of date, and only then; its targets are those that were promised."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TARGETS = [
    "help",
    "train",
    "eval",
    "test",
    "test-full",
    "check",
    "format",
    "bench",
    "gallery",
    "gallery-run",
    "sync",
    "clean",
    "clean-logs",
    "lock",
    "update-hooks",
    "test-next",
    "venv",
]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("make") is None or shutil.which("bash") is None,
    reason="needs make and bash",
)

# Plays python, venv and pip: notes what it is asked for, and fails or is killed in an install when told to.
SERVERS = "--quiet --python .venv/bin/python --requirement pyproject.toml --extra servers"
FAKE_PYTHON = """#!/usr/bin/env bash
here=$(cd "$(dirname "$0")" && pwd)
echo "$*" >>"$FAKE_LOG"
case "$*" in
  "--version") echo "Python 3.11.0" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*) [[ "${FAKE_END:-}" != kill ]] || kill -9 "$PPID"; exit "${FAKE_END:-0}" ;;
esac
"""


def make(*arguments: str, cwd: Path = ROOT) -> str:
    # under `make test` the outer make hands its flags down, and the inner one would speak of folders
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    return subprocess.run(["make", *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=True).stdout


def test_help_is_the_default_and_lists_every_target() -> None:
    text = make("help")
    listed = re.findall(r"^  ([a-z-]+) +\S", text, re.MULTILINE)
    assert sorted(listed) == sorted(TARGETS)
    assert make() == text


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("train", ".venv/bin/python src/train.py a=1 b=[x,y]"),
        ("eval", ".venv/bin/python src/eval.py a=1 b=[x,y]"),
        ("test", '.venv/bin/python -m pytest -m "not slow" -n 3 --dist loadfile a=1 b=[x,y]'),
        (
            "test-full",
            f".venv/bin/python -m uv pip install {SERVERS}\n.venv/bin/python -m pytest a=1 b=[x,y]",
        ),
        ("bench", ".venv/bin/python scripts/bench/run.py a=1 b=[x,y]"),
    ],
)
def test_a_target_looks_after_venv_and_passes_its_arguments_on(target: str, command: str) -> None:
    lines = make("-n", target, "ARGS=a=1 b=[x,y]").splitlines()
    assert lines == ["scripts/venv.sh .venv requirements.txt", *command.split("\n")]


def test_sync_never_merges() -> None:
    assert make("-n", "sync").strip() == "git pull --ff-only origin main"


def test_clean_logs_keeps_the_folder(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    run = tmp_path / "logs" / "train" / "runs" / "1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (tmp_path / "logs" / ".gitkeep").touch()
    make("clean-logs", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "logs").rglob("*")] == [".gitkeep"]


def test_clean_removes_caches_and_nothing_else(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in (
        "src/__pycache__",
        ".ruff_cache",
        ".venv/lib/__pycache__",
        "logs/train",
        "src/my package/__pycache__",
    ):
        (tmp_path / folder).mkdir(parents=True)
    make("clean", cwd=tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}
    assert left == {"src", "src/my package", ".venv", ".venv/lib", ".venv/lib/__pycache__", "logs", "logs/train"}


class Venv:
    """A project folder with a space in its name, whose python is played by a script."""

    def __init__(self, root: Path) -> None:
        self.root = root / "my project"
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "venv.sh", self.root / "scripts")
        (self.root / "requirements.txt").write_text("numpy==1\n")
        self.python = root / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.log = root / "log"
        self.stamp = self.root / ".venv" / "installed.txt"

    def run(self, *files: str, **variables: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            [str(self.root / "scripts" / "venv.sh"), ".venv", *(files or ("requirements.txt",))],
            env={**os.environ, "PYTHON": str(self.python), "FAKE_LOG": str(self.log), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> list[str]:
        return [line.split()[-1] for line in self.log.read_text().splitlines() if line.startswith("-m pip install")]


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    return Venv(tmp_path)


def test_a_missing_venv_is_made_and_stamped(venv: Venv) -> None:
    done = venv.run()
    assert done.returncode == 0, done.stderr
    assert venv.installs() == ["requirements.txt"]
    assert venv.stamp.read_text() == "numpy==1\n"


def test_a_venv_that_is_up_to_date_is_left_alone(venv: Venv) -> None:
    venv.run()
    done = venv.run()
    assert (done.returncode, done.stdout, done.stderr, venv.installs()) == (0, "", "", [])


def test_touched_requirements_install_nothing_and_changed_ones_do(venv: Venv) -> None:
    venv.run()
    (venv.root / "requirements.txt").touch()
    venv.run()
    assert venv.installs() == []
    (venv.root / "requirements.txt").write_text("numpy==2\n")
    venv.run()
    assert venv.installs() == ["requirements.txt"]
    assert venv.stamp.read_text() == "numpy==2\n"


@pytest.mark.parametrize("end", ["1", "kill"])
def test_an_install_that_fails_or_is_killed_leaves_no_stamp_and_is_done_again(venv: Venv, end: str) -> None:
    venv.run()
    (venv.root / "requirements.txt").write_text("numpy==2\n")
    assert venv.run(FAKE_END=end).returncode != 0
    assert not venv.stamp.exists()
    assert venv.run().returncode == 0
    assert venv.installs() == ["requirements.txt"]


def test_a_venv_whose_python_is_gone_is_made_anew(venv: Venv) -> None:
    venv.run()
    (venv.root / ".venv" / "bin" / "python").unlink()
    assert venv.run().returncode == 0
    assert "-m venv .venv" in venv.log.read_text()
    assert venv.installs() == ["requirements.txt"]


def test_a_second_file_is_installed_over_the_first(venv: Venv) -> None:
    (venv.root / "next.txt").write_text("hydra-core==1.4\n")
    venv.run("requirements.txt", "next.txt")
    assert venv.installs() == ["requirements.txt", "next.txt"]
    assert venv.stamp.read_text() == "numpy==1\nhydra-core==1.4\n"


def test_a_python_that_does_not_do_is_one_line(venv: Venv) -> None:
    done = venv.run(PYTHON="/nowhere/python3.9")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "PYTHON=/nowhere/python3.9: this is no working Python 3.10 to 3.13 with venv; name another one"
    ]


def test_no_python_at_all_is_one_line(venv: Venv, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat", "cmp", "rm", "mv"):
        tool = shutil.which(name)
        assert tool
        (tools / name).symlink_to(tool)
    done = venv.run(PYTHON="", PATH=str(tools))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "no Python from 3.10 to 3.13 with venv on PATH; install one, or name it: make PYTHON=/path/to/python3.12"
    ]


@pytest.mark.parametrize("code", [0, 2])
def test_ci_runs_check_and_test_and_ends_as_they_end(tmp_path: Path, code: int) -> None:
    fake = tmp_path / "make"
    fake.write_text(f'#!/bin/sh\necho "$PWD: $*"\nexit {code}\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run")],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, f"{ROOT}: --no-print-directory check test\n")
