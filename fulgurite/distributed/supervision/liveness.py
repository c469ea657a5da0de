"""Find externally launched ranks that exited, stopped or do not respond.

ranks/<rank>.pid    host and process ID while the rank works; deleted when it exits with or without an error
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fulgurite.core.errors import RankFailed
from fulgurite.core.proc import has_exited, is_stopped
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.supervision.failures import (
    FAILURE_REPORT_SECONDS,
    FAILURES_DIR,
    did_not_respond,
    first_failure,
    read_failures,
)


@contextmanager
def registered_pid(folder: Path) -> Iterator[None]:
    """Register the process ID of this rank for the other ranks."""
    note = folder / FAILURES_DIR / f"{rank()}.pid"
    with suppress(OSError):  # diagnosis must not fail the run
        note.parent.mkdir(exist_ok=True)
        note.write_text(f"{socket.gethostname()} {os.getpid()}")
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink()
            note.parent.rmdir()


def diagnose_missing_ranks(
    folder: Path, size: int, timeout: float, report_seconds: float = FAILURE_REPORT_SECONDS
) -> RankFailed:
    """Return the other rank that made this one lose its peers; wait `report_seconds` for failure notes."""
    end = time.monotonic() + report_seconds
    while True:
        notes = read_failures(folder)
        if (failed := first_failure({}, notes)) is not None:
            return failed
        unresponsive = [number for number in range(size) if number != rank() and number not in notes]
        for number in unresponsive:
            host, pid = _read_pid(folder, number)
            if pid and host == socket.gethostname():
                who = f"rank {number} (pid {pid})"
                if is_stopped(pid):
                    return RankFailed(f"{who} is stopped (SIGSTOP) and does not respond")
                if has_exited(pid):
                    return RankFailed(f"{who} exited without a reason: killed by a signal (out of memory?) or os._exit")
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    if not unresponsive:
        return RankFailed(f"rank {rank()} and its peers lost each other: the network failed")
    names = ", ".join(f"{number}{_pid_suffix(folder, number)}" for number in unresponsive)
    return did_not_respond(names, timeout)


def _read_pid(folder: Path, number: int) -> tuple[str, int]:
    with suppress(OSError, ValueError):
        host, pid = (folder / FAILURES_DIR / f"{number}.pid").read_text().split()
        return host, int(pid)
    return "", 0


def _pid_suffix(folder: Path, number: int) -> str:
    host, pid = _read_pid(folder, number)
    return f" ({host}, pid {pid})" if pid else ""
