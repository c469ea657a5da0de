"""What run.json and code.patch keep of the code, and what a resume reports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fulgurite.core.redact import mask_text
from fulgurite.runs import provenance
from tests.support.faults import with_fault
from tests.support.project import ROOT

QUICK = (
    "trainer.max_epochs=2",
    "+trainer.limit_train_batches=4",
    "+trainer.limit_val_batches=1",
    "callbacks.last_checkpoint.every_n_train_steps=1",
    "extras.print_config=false",
    "test=false",
)


def _git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_patch_has_the_changes_of_tracked_files_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provenance.code_patch(tmp_path) == ""
    (tmp_path / "a.py").write_text("x = 1\n")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "a.py")
    _git(tmp_path, "commit", "-qm", "a")
    assert provenance.code_patch(tmp_path) == ""
    (tmp_path / "a.py").write_text("x = 2\ntoken = 'abc'\n")
    patch = provenance.code_patch(tmp_path)
    assert "-x = 1\n+x = 2\n+token = ***\n" in patch
    monkeypatch.setattr(provenance, "MAX_PATCH_BYTES", 40)
    assert provenance.code_patch(tmp_path)[40:].startswith("\n... cut at 40 of ")


@pytest.mark.parametrize(
    "line", ["sorted(x, key=lambda y: y)", "key = make_key(x)", "keys: [a, b]", "token: ${oc.env:T}"]
)
def test_code_stays_readable(line: str) -> None:
    assert mask_text(line) == line


@pytest.mark.parametrize(
    "line", ["api_key: abcdef0123", 'self.password = "abc"', "AWS_SECRET=abcdef0123", f"db://u:{'pw'}@host"]
)
def test_secrets_are_masked(line: str) -> None:
    assert "***" in mask_text(line)


def test_a_changed_module_is_reported_although_the_checkout_was_dirty_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_user.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("of_a_user")
    git = {"commit": "0" * 40, "dirty": True}
    before: dict[str, Any] = {"git": git, "code": provenance.imported_code(tmp_path)}
    assert list(before["code"]) == ["of_a_user.py"]
    assert provenance.code_changes(before, before) == []
    assert provenance.code_changes({"git": git}, before) == []  # a run of an earlier version
    (tmp_path / "of_a_user.py").write_text("x = 2\n")
    now = {"git": git, "code": provenance.imported_code(tmp_path)}
    assert provenance.code_changes(before, now) == ["of_a_user.py"]
    del sys.modules["of_a_user"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_killed_run_of_a_dirty_checkout_reports_the_file_that_changed_before_its_resume(tmp_path: Path) -> None:
    project, run = tmp_path / "project", tmp_path / "run"
    for name in ("src", "configs", "fulgurite"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "data"):  # for the fault and the examples
        (project / name).symlink_to(ROOT / name)
    (project / ".project-root").touch()
    _git(project, "init", "-q")
    _git(project, "add", "src", "configs", "fulgurite")
    _git(project, "commit", "-qm", "first")
    model = project / "src/models/classifier.py"
    text = model.read_text()
    model.write_text(text + '\nAPI_TOKEN = "of-nobody-1234"\n')
    killed = _train(project, *QUICK, *with_fault("SIGKILL", step=3), f"hydra.run.dir={run}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    patch = (run / "code.patch").read_text()
    assert "+API_TOKEN = ***\n" in patch
    assert "of-nobody-1234" not in patch
    model.write_text(text + "\nX = 2\n")
    resumed = _train(project, f"resume={run}", "callbacks.fault=null")
    assert resumed.returncode == 0, resumed.stderr
    lines = [line for line in resumed.stderr.splitlines() if "the code has changed" in line]
    assert len(lines) == 1, resumed.stderr
    assert lines[0].endswith("resume: the code has changed since the run started: src/models/classifier.py")
    assert (run / "code.patch").read_text() == patch  # of the first start


def _train(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(project)}
    env = {name: value for name, value in env.items() if name != "PROJECT_ROOT"}
    command = [sys.executable, "src/train.py", *words]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_git_starts_no_program_of_the_checkout_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, canary = tmp_path / "checkout", tmp_path / "canary"
    folder.mkdir()
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    (folder / "a.py").write_text("x = 1\n")
    (folder / ".gitattributes").write_text("*.py diff=shown\n")
    _git(folder, "init", "-q")
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", "a")
    for name in ("core.fsmonitor", "diff.external", "diff.shown.textconv", "diff.shown.command"):
        _git(folder, "config", name, str(program))
    (folder / "hooks").mkdir()
    (folder / "hooks" / "post-index-change").symlink_to(program)
    (folder / "hooks" / "pre-commit").symlink_to(program)
    _git(folder, "config", "core.hooksPath", str(folder / "hooks"))
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER"):
        monkeypatch.setenv(name, str(program))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    canary.unlink(missing_ok=True)
    (folder / "a.py").write_text("x = 2\n")
    state = provenance.git_state(folder)
    assert state is not None
    assert state["dirty"]
    assert "-x = 1\n+x = 2\n" in provenance.code_patch(folder)
    assert not canary.exists()
    monkeypatch.delenv("GIT_DIR")
    _git(folder, *provenance.GIT_OPTIONS, "commit", "--allow-empty", "-qm", "b")  # any command runs no hook
    assert not canary.exists()
