"""Watch the processes of other ranks from a thread of rank 0."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from fulgurite.core.errors import EXIT_CRASH
from fulgurite.core.proc import is_stopped
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.distributed.supervision.failures import Processes, diagnose_failure
from fulgurite.runs.run_directory import mark_ended

log = RankedLogger(__name__)

POLL_SECONDS = 0.5
GRACE_SECONDS = 15.0  # for rank 0 to notice by itself that another rank exited


class RankWatcher(threading.Thread):
    """Thread that terminates rank 0 if it waits for an exited or stopped rank that it started."""

    def __init__(self, processes: Processes, folder: Path, timeout: float) -> None:
        super().__init__(daemon=True, name="rank-watcher")
        self.processes = dict(processes)
        self.folder = folder
        self.timeout = timeout
        self.stopping = threading.Event()  # set once rank 0 handles an error of its own

    def run(self) -> None:
        """Poll until rank 0 stops by itself, or its grace period ends."""
        exited_at: float | None = None
        stopped_at: float | None = None
        while not self.stopping.wait(POLL_SECONDS):
            now = time.monotonic()
            if any(process.poll() for process in self.processes.values()):
                exited_at = exited_at or now
            elif any(process.poll() is None and is_stopped(process.pid) for process in self.processes.values()):
                stopped_at = stopped_at or now
            else:
                stopped_at = None
            # in a collective the timeout of the process group comes first
            is_stopped_long = stopped_at and now - stopped_at > self.timeout + GRACE_SECONDS
            if is_stopped_long or (exited_at and now - exited_at > GRACE_SECONDS):
                self._terminate_rank_zero()
                return

    def _terminate_rank_zero(self) -> None:
        failed = diagnose_failure(self.processes, self.folder, self.timeout)
        if failed is None or not mark_ended(self.folder, "failed", str(failed), failed.exit_code):
            return  # the run has finished
        log.error("%s", failed)
        self.terminate_others(0)
        os._exit(failed.exit_code)  # a thread cannot interrupt a library call of the main thread

    def terminate_others(self, seconds: float) -> None:
        """Kill the ranks that have not exited after `seconds`, and wait for them."""
        self.stopping.set()
        end = time.monotonic() + seconds
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            process.kill()
            process.wait()


def take_over_from_stopped_rank_zero(parent: int, folder: Path) -> None:
    """On rank 1, close the record of a stopped rank 0 and kill it."""
    if rank() != 1 or not is_stopped(parent):
        return
    mark_ended(folder, "failed", f"rank 0 (pid {parent}) is stopped (SIGSTOP) and does not respond", EXIT_CRASH)
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)
