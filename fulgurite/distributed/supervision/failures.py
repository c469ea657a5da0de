"""Find the rank that failed, from failure notes and process states.

Rank 0 starts and watches the other ranks, and closes the record. A rank that fails writes a note:

    ranks/<rank>.json    reason, exit_code, log, secondary (true: it lost its peers, the root cause is another rank's)

A rank that was killed or stopped writes none; its process state shows that.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fulgurite.core.context import setting
from fulgurite.core.errors import RankFailed
from fulgurite.core.files import write_atomic
from fulgurite.core.proc import is_stopped
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.distributed.launch_env import current_launch
from fulgurite.runs.run_directory import RunDirectory

FAILURES_DIR = "ranks"
FAILURE_REPORT_SECONDS = 5.0  # for a failing rank to write its note and exit
RECORD_CLOSE_SECONDS = 10.0  # for rank 0 to close the record when all ranks fail
log = RankedLogger(__name__)
Processes = Mapping[int, subprocess.Popen[Any]]  # that rank 0 started, by rank

_SIGNAL_HINTS = {
    "SIGKILL": " (out of memory?)",
    # gloo aborts when ranks call different collectives
    "SIGABRT": ". Did the ranks run unequal numbers of batches, or call self.log(sync_dist=True) on some ranks only?",
}

# errors of gloo and NCCL about an exited or unresponsive peer
_PEER_LOSS = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|refused) by peer|Broken pipe|Timed out waiting \d+ms|pair closure"
)


def is_peer_loss(error: BaseException) -> bool:
    """Return whether an error only reports the loss of another rank."""
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    return type(error) is RuntimeError and _PEER_LOSS.search(str(error)) is not None


def write_failure(folder: Path, reason: str, exit_code: int, *, secondary: bool) -> None:
    """Write this rank's failure note; `secondary`: the rank only lost its peers."""
    log = next(iter(folder.glob(f"*.rank{rank()}.log")), None)
    note = {"reason": reason, "exit_code": exit_code, "secondary": secondary, "log": log.name if log else "the log"}
    with suppress(OSError):  # a full disk must not hide the error itself
        (folder / FAILURES_DIR).mkdir(exist_ok=True)
        write_atomic(folder / FAILURES_DIR / f"{rank()}.json", json.dumps(note) + "\n")


def read_failures(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the failure notes by rank."""
    return {
        int(path.stem): json.loads(path.read_text()) for path in sorted((folder / FAILURES_DIR).glob("[0-9]*.json"))
    }


def clear_failures(folder: Path) -> None:
    """Delete the failure notes of an earlier start."""
    for path in (folder / FAILURES_DIR).glob("*.json"):
        path.unlink()
    with suppress(OSError):
        (folder / FAILURES_DIR).rmdir()


def wait_for_rank_zero(folder: Path) -> None:
    """Wait for rank 0's record: a launcher kills all ranks when one exits.

    Returns at once without an external launcher, or while the process group exists: rank 0 then waits for this rank.
    """
    distributed = sys.modules.get("torch.distributed")
    if current_launch() is None or (distributed is not None and distributed.is_initialized()):
        return
    end = time.monotonic() + RECORD_CLOSE_SECONDS
    while time.monotonic() < end and _read_status(folder) == "running":
        time.sleep(0.1)


def _read_status(folder: Path) -> str | None:
    run = RunDirectory.of(folder)
    return "running" if run is None else str(run.record.get("status"))


def root_cause(folder: Path) -> RankFailed | None:
    """Return the failure for which a launcher terminated the other ranks."""
    return first_failure({}, read_failures(folder))


def did_not_respond(names: str, timeout: float) -> RankFailed:
    """Return the error about ranks that others waited for."""
    remedy = f"Raise {setting('distributed.rank_timeout_seconds')}"
    return RankFailed(f"rank {names} did not respond within {timeout:g} s. {remedy}.")


def diagnose_failure(
    processes: Processes, folder: Path, timeout: float, report_seconds: float = FAILURE_REPORT_SECONDS
) -> RankFailed | None:
    """Return the rank that failed and why, or None; wait `report_seconds` for failure notes."""
    end = time.monotonic() + report_seconds
    while True:
        notes = read_failures(folder)
        if (failed := first_failure(processes, notes)) is not None:
            return failed
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    unresponsive = [number for number, process in processes.items() if process.poll() is None and number not in notes]
    if unresponsive:
        names = ", ".join(f"{number} (pid {processes[number].pid})" for number in unresponsive)
        return did_not_respond(names, timeout)
    for number, note in notes.items():
        return RankFailed(f"rank {number} lost its peers: {note['reason']}")
    for number, process in processes.items():
        return RankFailed(
            f"rank {number} (pid {process.pid}) exited with code 0 while rank 0 waited for it. "
            "Remove os._exit from the code that it runs."
        )
    return None


def first_failure(processes: Processes, notes: Mapping[int, dict[str, Any]]) -> RankFailed | None:
    """Return the rank that has failed for its own reason so far, or None."""
    for number, note in notes.items():
        if not note["secondary"]:
            return RankFailed(f"rank {number} failed: {note['reason']} (traceback in {note['log']})", note["exit_code"])
    for number, process in processes.items():
        code = process.poll()
        if number in notes or code == 0:
            continue
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = _SIGNAL_HINTS.get(name, "")
            return RankFailed(f"rank {number} (pid {process.pid}) was killed by {name}{hint}")
        if code is not None:
            return RankFailed(f"rank {number} (pid {process.pid}) exited with code {code} without reporting a reason")
        if is_stopped(process.pid):
            return RankFailed(f"rank {number} (pid {process.pid}) is stopped (SIGSTOP) and does not respond")
    return None
