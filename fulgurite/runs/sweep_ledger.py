"""`sweep.jsonl`, the ledger of a sweep: what was planned and what became of each job, one line an event.

    plan      jobs [{job, key, words}], code, command    each start of a grid: all its jobs, and the state of the code
    queued    job, key, id                            a job was handed to Slurm, which knows it by `id`
    started   job, key, words, folder, pid               a job has a run directory, `folder` below the sweep's
    done, failed, killed   job, key, reason, exit_code   how it ended
    again     job, key, kept                             a job is run anew; what it had left is kept in this folder
    changed   before, files                              these files changed before job number `before` was started
    search    space, fixed, directions, n_trials, code, command    each start of a search, which has no list of jobs
    told      job, key, state, values, reason            what a study was told of a trial, which has the job's number
    pruned    job, key, reason, exit_code                a trial was ended early, as it promised little

Every line has `event` and `time` (UTC, ISO 8601). A key is a hash of a job's sorted words, so a job is the same job
whatever its place on the command line; `words` are as they may be shown. A line is one write to a file opened for
appending and is on the disk before the next thing happens, so a kill leaves whole lines, or a last one that is
ignored. How a job ended stands in its own run.json too, which wins: a job may have gone on alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fulgurite.core.errors import EXIT_CRASH, FulguriteError
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import mask_override

LEDGER = "sweep.jsonl"
GRID, SEARCH = "plan", "search"  # the event by which each kind of sweep begins

log = RankedLogger(__name__)


def append_event(folder: Path, event: str, /, **facts: Any) -> None:
    """Add a line to a sweep's ledger, and have it on the disk; other ranks than 0 add none.

    Args:
        folder: The sweep's directory.
        event: As listed above.
        facts: As listed above.
    """
    if rank() != 0:
        return
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = json.dumps({"event": event, "time": now, **facts}) + "\n"
    handle = os.open(folder / LEDGER, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _lock(handle)
        if _is_torn(handle):
            line = f"\n{line}"
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass
class LedgerState:
    """The lines of a ledger that this process has read; a fork starts with those of its parent.

    Attributes:
        num_bytes: How far the file was read.
        events: All events, oldest first.
        planned: Job number to key, from the first plan.
        last: Job number to the job's last event.
    """

    num_bytes: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    planned: dict[int, str] = field(default_factory=dict)
    last: dict[int, dict[str, Any]] = field(default_factory=dict)


_states: dict[Path, LedgerState] = {}


def ledger_state(folder: Path) -> LedgerState:
    """Return the state of a ledger; only the lines since the last call are read.

    Args:
        folder: The sweep's directory.
    """
    path = folder / LEDGER
    state = _states.setdefault(path, LedgerState())
    size = path.stat().st_size if path.is_file() else 0
    if size < state.num_bytes:  # the ledger was replaced
        state = _states[path] = LedgerState()
    if size == state.num_bytes:
        return state
    with path.open("rb") as file:
        file.seek(state.num_bytes)
        for line in file:
            if not line.endswith(b"\n"):  # a line that is being written, or was interrupted
                break
            state.num_bytes += len(line)
            if (event := _parse(line)) is None:
                continue
            state.events.append(event)
            if event.get("event") == GRID and not state.planned:
                state.planned = {job["job"]: job["key"] for job in event["jobs"]}
            elif "job" in event:
                state.last[event["job"]] = event
    return state


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a sweep, oldest first; none without a ledger."""
    return list(ledger_state(folder).events)


def first_plan(events: Sequence[Mapping[str, Any]], kind: str = GRID) -> Mapping[str, Any] | None:
    """Return the first plan among a ledger's events; those after it hold the same jobs, or the same space."""
    return next((event for event in events if event["event"] == kind), None)


def job_key(words: Sequence[str]) -> str:
    """Return the hash of a job's words, whatever their order."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:16]


def record_event(sweep: Mapping[str, Any] | None, event: str, *, run: Path, **facts: Any) -> None:
    """Write into the ledger what became of a job.

    Args:
        sweep: Directory and number of the job as run.json has them; None for a run of no sweep.
        event: `queued`, `started`, `done`, `failed` or `killed`.
        run: The job's run directory.
        facts: What else there is to say.
    """
    if sweep is None or rank() != 0 or not Path(sweep["dir"]).is_dir():
        return
    folder, number, words = Path(sweep["dir"]), sweep["job"], _task_overrides()
    ledger = ledger_state(folder)
    key = ledger.planned.get(number)
    if key is None and event != "started":  # of a job that could not say so itself the sweep tells, and has other words
        key = ledger.last.get(number, {}).get("key")
    key = key or job_key(words)
    if event == "started":
        inside = run.absolute().is_relative_to(folder.absolute())
        where = run.absolute().relative_to(folder.absolute()) if inside else run
        facts |= {"words": [mask_override(word) for word in words], "folder": str(where), "pid": os.getpid()}
    try:
        append_event(folder, event, job=number, key=key, **facts)
    except OSError as error:  # run.json says the same
        log.error("%s: cannot be written (%s)", folder / LEDGER, error.strerror or error)


def record_failure(folder: Path, number: int, key: str, error: BaseException) -> bool:
    """Write that a job failed which had no record to say so in; False where the ledger has how it ended.

    Args:
        folder: The sweep's directory.
        number: Of the job.
        key: Of the job.
        error: What it has raised.
    """
    if ledger_state(folder).last.get(number, {}).get("event") in {"failed", "killed"}:
        return False
    code = error.exit_code if isinstance(error, FulguriteError) else EXIT_CRASH
    append_event(folder, "failed", job=number, key=key, reason=str(error), exit_code=code)
    return True


def _task_overrides() -> list[str]:
    if not HydraConfig.initialized():
        return []
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a line's event; None for the last line of a process that was killed, or of a disk that was full."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _lock(handle: int) -> None:
    """Let no other process write until the file is closed: on NFS, two machines may append at the same place."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with suppress(OSError):  # a file system without locks
        fcntl.lockf(handle, fcntl.LOCK_EX)


def _is_torn(handle: int) -> bool:
    """Tell whether an open ledger ends in half a line."""
    if not (size := os.fstat(handle).st_size):
        return False
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) != b"\n"
