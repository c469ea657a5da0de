"""What the system says of a process; nothing where it has no /proc."""

from __future__ import annotations

import os
from pathlib import Path


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on: state, parent, ...; the twentieth is when it began.

    Args:
        pid: Process id.

    Returns:
        Nothing where there is no such process, or no /proc.
    """
    try:
        # the name before the state may hold spaces and brackets
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped (SIGSTOP)."""
    return stat_of(pid)[:1] in (["T"], ["t"])


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that its parent has not taken note of yet has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # of another user
        return False
    return stat_of(pid)[:1] == ["Z"]
