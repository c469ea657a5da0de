"""Which of the processes that a launcher has started is gone, stopped or late: rank 0 is not their parent.

ranks/<rank>.pid    host and process id, while the rank is at work; one that ends well or with a word takes it away
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fulgurite.core.errors import EXIT_CRASH, RankFailed
from fulgurite.core.proc import has_exited, is_stopped
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.supervision.failures import (
    FAILURE_REPORT_SECONDS,
    FAILURES_DIR,
    first_failure,
    read_failures,
)


@contextmanager
def registered_pid(folder: Path) -> Iterator[None]:
    """Have this process be known to the other ranks while it works.

    Args:
        folder: The run directory.
    """
    note = folder / FAILURES_DIR / f"{rank()}.pid"
    with suppress(OSError):  # what only helps to say who failed must not fail
        note.parent.mkdir(exist_ok=True)
        note.write_text(f"{socket.gethostname()} {os.getpid()}")
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink()
            note.parent.rmdir()


def diagnose_missing_ranks(
    folder: Path, size: int, timeout: float, patience: float = FAILURE_REPORT_SECONDS
) -> RankFailed:
    """Return which other rank made this one fail, which has only lost the others.

    Args:
        folder: The run directory.
        size: Number of ranks.
        timeout: Seconds that ranks were allowed to wait for each other.
        patience: Seconds to wait for words of ranks that fail too.
    """
    end = time.monotonic() + patience
    while True:
        words = read_failures(folder)
        if (failed := first_failure({}, words)) is not None:
            return failed
        silent = [number for number in range(size) if number != rank() and number not in words]
        for number in silent:
            host, pid = _read_pid(folder, number)
            if pid and host == socket.gethostname():
                who = f"rank {number} (pid {pid})"
                if is_stopped(pid):
                    return RankFailed(f"{who} is stopped (SIGSTOP) and does not answer", EXIT_CRASH)
                if has_exited(pid):
                    hint = "killed by a signal; the system does so when the memory is full"
                    return RankFailed(f"{who} is gone without a word: {hint}", EXIT_CRASH)
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    if not silent:
        return RankFailed(f"rank {rank()} lost the others, who say the same of it: the network failed", EXIT_CRASH)
    names = ", ".join(f"{number}{_pid_suffix(folder, number)}" for number in silent)
    return RankFailed(
        f"rank {names} did not answer within {timeout:g} s; "
        "if that long is right, raise distributed.rank_timeout_seconds",
        EXIT_CRASH,
    )


def _read_pid(folder: Path, number: int) -> tuple[str, int]:
    with suppress(OSError, ValueError):
        host, pid = (folder / FAILURES_DIR / f"{number}.pid").read_text().split()
        return host, int(pid)
    return "", 0


def _pid_suffix(folder: Path, number: int) -> str:
    host, pid = _read_pid(folder, number)
    return f" ({host}, pid {pid})" if pid else ""
