"""What run.json and code.patch keep of the code, and what a resume reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fulgurite.core.redact import mask_text
from fulgurite.runs import provenance


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
    (tmp_path / "untracked.py").write_text("y = 1\n")
    patch = provenance.code_patch(tmp_path)
    assert "-x = 1\n+x = 2\n+token = ***\n" in patch
    assert "untracked" not in patch
    monkeypatch.setattr(provenance, "MAX_PATCH_BYTES", 40)
    assert provenance.code_patch(tmp_path)[40:].startswith("\n... cut at 40 of ")


@pytest.mark.parametrize(
    "line", ["sorted(x, key=lambda y: y)", "key = make_key(x)", "keys: [a, b]", "token: ${oc.env:T}"]
)
def test_code_stays_readable(line: str) -> None:
    assert mask_text(line) == line


@pytest.mark.parametrize(
    "line", ["api_key: abcdef0123", 'self.password = "abc"', "AWS_SECRET=abcdef0123", "db://u:pw@host"]
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
