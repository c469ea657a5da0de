"""Lock a run directory so that one process writes to it at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import rank
from fulgurite.runs.layout import LOCK_FILE


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Be the one process that writes to a run directory; the system ends that when the process dies, however it dies.

    Other ranks than 0 write nothing of their own and are let pass.

    Raises:
        UserError: A living process has it.
    """
    if rank() != 0:
        yield
        return
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(handle):
            pid = os.pread(handle, 32, 0).decode().strip() if hasattr(os, "pread") else ""
            raise UserError(
                f"{folder}: is being written to by another process{f' (pid {pid})' if pid else ''}; "
                "wait for its end, or end it"
            )
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Tell whether a living process of this or another program has the run directory."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock an open file for this process.

    A lock of POSIX, not one of BSD: it belongs to the process alone. The workers of a data loader, forked from it,
    would keep the other kind for some seconds after their parent was killed.
    """
    try:
        import fcntl
    except ImportError:  # Windows has one kind only, and no fork
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
