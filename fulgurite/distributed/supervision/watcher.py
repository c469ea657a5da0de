"""Watch the failure notes of other ranks from a thread."""

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
from fulgurite.distributed.supervision.failures import (
    Processes,
    diagnose_failure,
)
from fulgurite.runs.run_json import mark_ended

log = RankedLogger(__name__)

POLL_SECONDS = 0.5  # seconds between two looks at the other ranks


GRACE_SECONDS = 15.0  # seconds after which rank 0 is ended if it waits for a rank that is gone


class RankWatcher(threading.Thread):
    """Thread of rank 0: sees that another rank is gone, and ends a rank 0 that goes on waiting for it.

    Args:
        processes: Those that this process started, by rank.
        folder: The run directory.
        timeout: Seconds that ranks may wait for each other.
    """

    def __init__(self, processes: Processes, folder: Path, timeout: float) -> None:
        super().__init__(daemon=True, name="rank-watcher")
        self.processes = dict(processes)
        self.folder = folder
        self.timeout = timeout
        self.leaving = threading.Event()  # set as soon as rank 0 has an error of its own to end with

    def run(self) -> None:
        """Look until rank 0 leaves by itself, or has had its time to."""
        since: float | None = None
        stopped: float | None = None
        while not self.leaving.wait(POLL_SECONDS):
            now = time.monotonic()
            if any(process.poll() for process in self.processes.values()):
                since = since or now
            else:
                asleep = any(process.poll() is None and is_stopped(process.pid) for process in self.processes.values())
                stopped = (stopped or now) if asleep else None
            # the time-out of the group comes first where rank 0 waits in a collective
            if (since and now - since > GRACE_SECONDS) or (stopped and now - stopped > self.timeout + GRACE_SECONDS):
                self._end_rank_zero()
                return

    def _end_rank_zero(self) -> None:
        failed = diagnose_failure(self.processes, self.folder, self.timeout)
        if failed is None or not mark_ended(self.folder, "failed", str(failed), failed.exit_code):
            return  # the run has ended well before
        log.error("%s", failed)
        self.end_others(0)
        os._exit(failed.exit_code)  # a thread cannot wake the main one out of a call into a library

    def end_others(self, patience: float) -> None:
        """End the ranks that have not ended by themselves after `patience` seconds, and wait until they are gone."""
        self.leaving.set()
        end = time.monotonic() + patience
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            process.kill()
            process.wait()


def take_over_from_stopped_rank_zero(parent: int, folder: Path) -> None:
    """Close the record of a rank 0 that is stopped, and end it: nobody else would. Rank 1 does it.

    Args:
        parent: Process id of rank 0.
        folder: The run directory.
    """
    if rank() != 1 or not is_stopped(parent):
        return
    mark_ended(folder, "failed", f"rank 0 (pid {parent}) is stopped (SIGSTOP) and does not answer", EXIT_CRASH)
    with suppress(ProcessLookupError):
        os.kill(parent, signal.SIGKILL)
