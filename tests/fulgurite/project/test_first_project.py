"""The README's first project, executed literally in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.first_project import blocks, files
from tests.support.project import ROOT, check_options, readme

if not readme():
    pytest.skip("the README is the project's own", allow_module_level=True)
COMMANDS = [line for kind, block in blocks() if kind == "bash" for line in block.splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project with the files of the section."""
    folder = tmp_path_factory.mktemp("first project") / "my project"
    folder.mkdir()
    return copy(folder, ("src", "configs", "fulgurite", ".project-root"))


def start(project: Path, command: str) -> subprocess.Popen[str]:
    """Start a command in the project as a user does."""
    env = {name: value for name, value in os.environ.items() if name != "PROJECT_ROOT"}
    env |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = [sys.executable, *shlex.split(command)[1:]]
    return subprocess.Popen(
        words, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def copy(folder: Path, names: tuple[str, ...]) -> Path:
    """Copy files and folders of the project into a folder, add the files of the section, and return the folder."""
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    for path, content in files().items():
        (folder / path).write_text(content)
    return folder


def run(project: Path, command: str) -> tuple[int, str, str]:
    """Run a command to its end; return exit code, standard output and standard error."""
    with start(project, command) as process:
        out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def interrupt_after_three_epochs(project: Path, command: str) -> int:
    """Start a command, send it Ctrl-C when its metrics.csv has three epochs, and return its exit code."""
    known = set((project / "logs/train/runs").iterdir())
    with start(project, command) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            tables = [path / "metrics.csv" for path in (project / "logs/train/runs").iterdir() if path not in known]
            if any(path.is_file() and len(path.read_text().splitlines()) > 3 for path in tables):
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.02)
        process.communicate(timeout=60)
    return process.returncode


def test_the_files_are_three_of_python_and_three_configs() -> None:
    assert [Path(path).suffix for path in files()] == [".py"] * 3 + [".yaml"] * 3
    assert len(files()["src/data/spirals.py"].splitlines()) <= 40


@pytest.mark.slow
def test_every_command_does_what_the_section_says(project: Path) -> None:
    train, typo, resumed, sweep, table = COMMANDS
    code, _, err = run(project, train)
    assert code == 0, err
    [first] = (project / "logs/train/runs").iterdir()
    assert json.loads((first / "results.json").read_text())["metrics"]["test/acc"] > 0.9
    code, _, err = run(project, typo)
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no such key. Did you mean 'model.net.hidden_size'?" in err
    assert interrupt_after_three_epochs(project, resumed) == 130
    code, _, err = run(project, resumed)
    assert code == 0, err
    [second] = set((project / "logs/train/runs").iterdir()) - {first}
    record = json.loads((second / "run.json").read_text())
    assert (record["status"], len(record["resumed"])) == ("done", 1)
    code, _, err = run(project, sweep)
    assert code == 0, err
    code, out, err = run(project, table)
    assert code == 0, err
    assert len(re.findall(r"\bdone\b", out)) == 6


@pytest.mark.slow
def test_the_checks_and_the_tests_of_the_project_pass_beside_the_files(tmp_path: Path) -> None:
    names = ("src", "configs", "fulgurite", "tests", "scripts", "data/mnist_sample", "pyproject.toml", ".project-root")
    project = copy(tmp_path, names)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PROJECT_ROOT": str(project)}
    python, configs = ([path for path in files() if path.endswith(suffix)] for suffix in (".py", ".yaml"))
    commands = [[*shlex.split(check_options(name)), *python] for name in ("YOUR_RUFF", "YOUR_MYPY")]
    commands.append([*shlex.split(check_options("YOUR_YAMLLINT")), *configs])
    commands.append(["pytest", "-q", "tests/test_experiments.py", "tests/test_configs.py", "-k", "spirals or your"])
    outputs = []
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=project, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    assert "2 passed" in outputs[-1]
