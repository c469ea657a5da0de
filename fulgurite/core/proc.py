"""Process state from /proc, and processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fulgurite.core.errors import EXIT_CRASH

PARENT_POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on: state, parent, ...

    The twentieth field is the start time. Empty without such a process, or without /proc.
    """
    try:
        # the process name before the state may contain spaces and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped (SIGSTOP)."""
    return read_stat(pid)[:1] in (["T"], ["t"])


def has_exited(pid: int) -> bool:
    """Return whether a process has exited; a zombie has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return read_stat(pid)[:1] == ["Z"]


def exit_with_parent(parent: int) -> None:
    """Exit this process at once when its parent is gone, also while it is blocked in a collective."""
    _call_when_orphaned(parent, lambda: os._exit(EXIT_CRASH))


def terminate_with_parent(parent: int) -> None:
    """Send this process SIGTERM when its parent is gone, also by SIGKILL: it saves and exits."""
    if sys.platform != "linux":
        _call_when_orphaned(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # gone before the call
        os._exit(EXIT_CRASH)


def _call_when_orphaned(parent: int, action: Callable[[], None]) -> None:
    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        action()

    threading.Thread(target=poll, daemon=True, name="parent-watcher").start()
