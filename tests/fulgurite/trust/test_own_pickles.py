"""What a process unpickles comes from folders that only its user can write to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fulgurite.core.errors import UserError
from fulgurite.launchers.cluster.slurm import SUBMITIT_DIR, SlurmScheduler
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.trust import ownership
from fulgurite.trust.ownership import make_private_folder, require_own

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


def test_a_new_folder_is_closed_to_others_and_empty(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir(mode=0o755)
    (tmp_path / "made/12_result.pkl").write_text("canary")
    for place in ("made", "new/below"):
        folder = make_private_folder(tmp_path / place)
        assert folder.parent == tmp_path / place
        assert folder.stat().st_mode & 0o077 == 0
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757, 0o775])
def test_a_folder_that_others_may_write_to_is_refused(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_is_private_group", lambda _: False)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    said = rf"^{folder}: other users may write to it, and a pickle there could run code\. .* chmod go-w {folder}\.$"
    for check in (require_own, make_private_folder):
        with pytest.raises(UserError, match=said):
            check(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_of_another_user_or_behind_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=rf"^{tmp_path}/link: is a symbolic link"):
        require_own(tmp_path / "link")
    require_own(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UserError, match=rf"^{tmp_path}: belongs to the user \S+.*, and a pickle there could run code"):
        require_own(tmp_path)


def test_a_group_without_other_members_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    user = SimpleNamespace(pw_name="me", pw_gid=7)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o775)
    for number, name, members in ((7, "me", []), (7, "me", ["me"])):
        group = SimpleNamespace(gr_gid=number, gr_name=name, gr_mem=members)
        monkeypatch.setattr(grp, "getgrgid", lambda _, found=group: found)
        require_own(folder)
    for number, name, members in ((7, "me", ["you"]), (7, "users", []), (8, "me", [])):
        group = SimpleNamespace(gr_gid=number, gr_name=name, gr_mem=members)
        monkeypatch.setattr(grp, "getgrgid", lambda _, found=group: found)
        with pytest.raises(UserError, match="other users may write to it"):
            require_own(folder)


def test_the_result_of_a_job_is_not_read_from_an_open_folder(tmp_path: Path) -> None:
    """submitit would unpickle it."""
    folder = tmp_path / SUBMITIT_DIR / "start" / "12"
    folder.mkdir(parents=True)
    (folder / "12_0_result.pkl").write_text("canary")
    folder.parent.chmod(0o777)

    def task(_: int) -> Any:
        raise AssertionError("the result was read")

    scheduler = object.__new__(SlurmScheduler)
    scheduler.filesystem_seconds = 0.0
    paths = SimpleNamespace(result_pickle=folder / "12_0_result.pkl", folder=folder)
    with pytest.raises(UserError, match=rf"^{folder.parent}: other users may write to it"):
        scheduler.result(SimpleNamespace(paths=paths, task=task))


@pytest.mark.parametrize("name", ["--experimental-rerun", "--experimental", "--e"])
def test_hydras_pickled_config_is_not_loaded(name: str) -> None:
    for arguments in ([f"{name}=config.pickle"], [name, "config.pickle"]):
        with pytest.raises(UserError, match=rf"^{name}\S*: unpickles a config, which could run code\. Pass resume="):
            expand_shorthands(arguments, "train")
