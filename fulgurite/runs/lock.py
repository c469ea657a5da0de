"""Lock a run directory so that one process writes to it at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fulgurite.core.errors import UserError
from fulgurite.core.files import MAX_LINES, why_unreadable
from fulgurite.core.rank_logging import rank
from fulgurite.runs.layout import LOCK_FILE, METRICS


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run directory for this process; the system releases the lock when the process dies.

    Only rank 0 takes the lock: other ranks do not write there.

    Raises:
        UserError: Another process holds the lock, or the folder has files that are elsewhere.
    """
    if rank() != 0:
        yield
        return
    refuse_links(folder)
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle):
            pid = os.pread(handle, 32, 0).decode().strip() if hasattr(os, "pread") else ""
            holder = f"process {pid}" if pid else "another process"
            raise UserError(f"{folder}: locked by {holder}. Wait for it to finish, or stop it.")
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def refuse_links(folder: Path) -> None:
    """Refuse a run directory with a link to a file elsewhere, a pipe or a device: a resumed run would write to it."""
    for path in folder.iterdir():
        if path.is_symlink() and not path.is_dir() and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: is a link to {path.resolve()}, outside of the run directory. Remove it.")
        if path.is_socket() or path.is_dir():
            continue
        limit = MAX_LINES if path.name == METRICS else sys.maxsize  # a resume reads it
        with suppress(FileNotFoundError):  # a process that writes to the folder may replace it
            if wrong := why_unreadable(path.stat(), limit):
                raise UserError(f"{path}: {wrong}. Remove it.")


def is_locked(folder: Path) -> bool:
    """Return whether another process has the run directory locked."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock an open file for this process, and return whether that succeeded.

    The lock is a POSIX lock, which belongs to the process alone: forked DataLoader workers would hold a BSD lock for
    some seconds after their parent was killed.
    """
    try:
        if sys.platform == "win32":  # it has one kind of lock, and no fork
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
