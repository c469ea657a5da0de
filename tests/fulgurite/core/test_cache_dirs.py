"""Cache folders of libraries: a folder that is not writable is replaced, and the run continues."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fulgurite.core.project import CACHES, use_writable_caches
from tests.conftest import SMALL
from tests.support.cli import only_run, read_json, run_cli
from tests.support.run_if import RunIf


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose home can be written."""
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_text("")  # holds for root too: nothing can be made below a file
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return {"TORCH_HOME": str(tmp_path / "home" / "torch")}


def test_writable_cache_folders_are_kept_without_a_warning(
    env: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(env)
    use_writable_caches(env)
    assert env == before
    assert capsys.readouterr().err == ""
    assert list((tmp_path / "tmp").iterdir()) == []


@RunIf(posix=True)
def test_unwritable_cache_folders_are_replaced_by_a_private_one(
    env: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env["XDG_CACHE_HOME"] = f"{tmp_path}/file/cache"
    use_writable_caches(env)
    [made] = (tmp_path / "tmp").iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    assert env == {"TORCH_HOME": str(tmp_path / "home" / "torch"), "XDG_CACHE_HOME": f"{made}/xdg_cache_home"}
    line = f"warning: XDG_CACHE_HOME={tmp_path}/file/cache: not writable. Caches go to {made}.\n"
    assert capsys.readouterr().err == line


@RunIf(posix=True)
def test_a_folder_that_another_user_could_have_planted_is_not_used(env: dict[str, str], tmp_path: Path) -> None:
    planted = tmp_path / "tmp" / f"fulgurite-cache-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    env["MPLCONFIGDIR"] = f"{tmp_path}/file/m"
    use_writable_caches(env)
    assert not env["MPLCONFIGDIR"].startswith(f"{planted}/")
    assert Path(env["MPLCONFIGDIR"]).parent.stat().st_mode & 0o777 == 0o700


@RunIf(posix=True)
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_run_without_a_home_or_a_cache_ends_well(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", f"{tmp_path}/file/home")
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, f"{tmp_path}/file/{name}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    # cold: a warm process imports torch before the entry point redirects the caches
    done = run_cli("train", *SMALL, logs=tmp_path / "logs", cold=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("not writable. Caches go to ") == 1
    record = read_json(only_run(tmp_path / "logs") / "run.json")
    assert (record["status"], record["exit_code"]) == ("done", 0)
