"""Require that only this user can have written what a process unpickles."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

from fulgurite.core.errors import UserError


def require_own(path: Path) -> None:
    """Refuse a file or a folder that another user owns or may write to.

    A symbolic link is refused too: it may lead to another place at each use. Windows has no such permissions.

    Raises:
        UserError: Another user could have put a pickle there, which runs code when it is loaded.
    """
    if not hasattr(os, "getuid"):
        return
    found = path.lstat()
    why = "a pickle there could run code"
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"{path}: is a symbolic link, and {why}. Replace it by a folder of your own.")
    if found.st_uid != os.getuid():
        raise UserError(f"{path}: belongs to {_user_name(found.st_uid)}, and {why}. Use a folder of your own.")
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)):
        raise UserError(f"{path}: other users may write to it, and {why}. Check it, then run chmod go-w {path}.")


def is_own(path: Path) -> bool:
    """Return whether this user owns a file; Windows has no such owners."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def make_private_folder(folder: Path) -> Path:
    """Return a new folder below one for pickles, which is created with its parents if it does not exist.

    Files that somebody put there before, under the name of a job to come, are not in the new one.

    Raises:
        UserError: The folder exists, and other users own it or may write to it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    require_own(folder)
    return Path(tempfile.mkdtemp(dir=folder, prefix=time.strftime("%m%d-%H%M%S-")))


def _is_private_group(group: int) -> bool:
    """Return whether a group is this user's own, by the convention that it has the user's name and no members."""
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_gid == user.pw_gid and found.gr_name == user.pw_name and not set(found.gr_mem) - {user.pw_name}


def _user_name(user: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with number {user}"
