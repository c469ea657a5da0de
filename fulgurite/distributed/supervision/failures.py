"""Several processes, one run: which of them failed, told by one line, and an end for those that wait for it.

Rank 0 starts the others, watches them, and closes the record. A rank that fails leaves a word in the run directory:

    ranks/<rank>.json    reason, exit_code, waited (true: it only lost the others, the fault is not its own), log

A rank that was killed or stopped can leave none; the system knows that of it.
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

from fulgurite.core.errors import RankFailed
from fulgurite.core.files import write_atomic
from fulgurite.core.proc import is_stopped
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.distributed.launch_env import LaunchInfo
from fulgurite.runs.run_directory import RunDirectory

FAILURES_DIR = "ranks"
FAILURE_REPORT_SECONDS = 5.0  # seconds in which a failing rank leaves its word and ends
RECORD_CLOSE_SECONDS = 10.0  # seconds that rank 0 may take to close the record when all fail
log = RankedLogger(__name__)
Processes = Mapping[int, subprocess.Popen[Any]]  # those that rank 0 started, by rank

# What gloo and NCCL say when another process is gone or late.
_PEER_LOSS = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|refused) by peer|Broken pipe|Timed out waiting \d+ms|pair closure"
)


def is_peer_loss(error: BaseException) -> bool:
    """Tell whether an error only says that another rank is gone or late."""
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    return type(error) is RuntimeError and _PEER_LOSS.search(str(error)) is not None


def write_failure(folder: Path, reason: str, exit_code: int, *, waited: bool) -> None:
    """Write why this rank fails, for rank 0.

    Args:
        folder: The run directory.
        reason: One line.
        exit_code: What this process ends with.
        waited: The rank only lost the others.
    """
    log = next(iter(folder.glob(f"*.rank{rank()}.log")), None)
    word = {"reason": reason, "exit_code": exit_code, "waited": waited, "log": log.name if log else "the log"}
    with suppress(OSError):  # a full disk must not hide the error that is being told
        (folder / FAILURES_DIR).mkdir(exist_ok=True)
        write_atomic(folder / FAILURES_DIR / f"{rank()}.json", json.dumps(word) + "\n")


def read_failures(folder: Path) -> dict[int, dict[str, Any]]:
    """Return what failing ranks left, by rank."""
    return {
        int(path.stem): json.loads(path.read_text()) for path in sorted((folder / FAILURES_DIR).glob("[0-9]*.json"))
    }


def clear_failures(folder: Path) -> None:
    """Remove what ranks of an earlier start left."""
    for path in (folder / FAILURES_DIR).glob("*.json"):
        path.unlink()
    with suppress(OSError):
        (folder / FAILURES_DIR).rmdir()


def wait_for_rank_zero(folder: Path) -> None:
    """Wait until rank 0 has closed the record: a launcher that sees one process end ends the others amid that.

    Does nothing where no launcher has started them, or where rank 0 waits for this process.
    """
    distributed = sys.modules.get("torch.distributed")
    if LaunchInfo.current is None or (distributed is not None and distributed.is_initialized()):
        return
    end = time.monotonic() + RECORD_CLOSE_SECONDS
    while time.monotonic() < end and _read_status(folder) == "running":
        time.sleep(0.1)


def _read_status(folder: Path) -> str | None:
    run = RunDirectory.of(folder)
    return "running" if run is None else str(run.record.get("status"))


def root_cause(folder: Path) -> RankFailed | None:
    """Return the failure of a rank of its own that a launcher ended the others for; None when none left a word."""
    return first_failure({}, read_failures(folder))


def diagnose_failure(
    processes: Processes, folder: Path, timeout: float, patience: float = FAILURE_REPORT_SECONDS
) -> RankFailed | None:
    """Return which rank failed and why, or None when none of them did.

    Args:
        processes: Those that this process started, by rank.
        folder: The run directory, where ranks leave words.
        timeout: Seconds that ranks were allowed to wait for each other.
        patience: Seconds to wait for evidence.
    """
    end = time.monotonic() + patience
    while True:
        words = read_failures(folder)
        if (failed := first_failure(processes, words)) is not None:
            return failed
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    silent = [number for number, process in processes.items() if process.poll() is None and number not in words]
    if silent:
        names = ", ".join(f"{number} (pid {processes[number].pid})" for number in silent)
        return RankFailed(
            f"rank {names} did not answer within {timeout:g} s; "
            "if that long is right, raise distributed.rank_timeout_seconds"
        )
    for number, word in words.items():
        return RankFailed(f"rank {number} lost the others: {word['reason']}")
    return None


def first_failure(processes: Processes, words: Mapping[int, dict[str, Any]]) -> RankFailed | None:
    """Return which rank has certainly failed by now and why, or None."""
    for number, word in words.items():
        if not word["waited"]:
            return RankFailed(
                f"rank {number} failed: {word['reason']}; {word['log']} has its traceback", word["exit_code"]
            )
    for number, process in processes.items():
        code = process.poll()
        if number in words or code == 0:
            continue
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; the system does so when the memory is full" if name == "SIGKILL" else ""
            return RankFailed(f"rank {number} (pid {process.pid}) was killed by {name}{hint}")
        if code is not None:
            return RankFailed(f"rank {number} (pid {process.pid}) ended itself with exit code {code}")
        if is_stopped(process.pid):
            return RankFailed(f"rank {number} (pid {process.pid}) is stopped (SIGSTOP) and does not answer")
    return None
