"""Read and write `sweep.jsonl`, the ledger of a sweep: one line for each event of the sweep and its jobs.

    plan      jobs [{job, key, words}], code, command    each start of a grid: all its jobs, and the state of the code
    queued    job, key, id                            a job was submitted to Slurm; `id` is the Slurm job ID
    started   job, key, words, folder, pid               a job has a run directory, `folder` below the sweep's
    done, failed, killed   job, key, reason, exit_code   the job ended
    again     job, key, kept                             a job is restarted; its old run directory was moved to `kept`
    changed   before, files                              these files changed before job number `before` was started
    search    space, fixed, directions, n_trials, code, command    each start of a search
    reported  job, key, state, values, reason            the result that the study got for a trial
    pruned    job, key, reason, exit_code                the pruner stopped a trial

Every line has `event` and `time` (UTC, ISO 8601). A key is a hash of the job's sorted overrides, so that their order
does not matter. `words` are the overrides with masked secrets. A line is one synced write to a file opened for
appending, so a kill leaves complete lines, or an incomplete last line, which is ignored. The status in a job's run.json
wins over the ledger: the job may have been resumed on its own.
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
from fulgurite.core.files import MAX_LINES, open_regular
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import hide_secrets, mask_override
from fulgurite.runs.run_files import warn_unreadable

LEDGER = "sweep.jsonl"
GRID, SEARCH = "plan", "search"  # the event by which each kind of sweep begins

log = RankedLogger(__name__)


def append_event(folder: Path, event: str, /, **fields: Any) -> None:
    """Append an event to a sweep's ledger and sync it to disk, on rank 0 only."""
    if rank() != 0:
        return
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    if isinstance(reason := fields.get("reason"), str):
        fields["reason"] = hide_secrets(reason)
    line = json.dumps({"event": event, "time": now, **fields}) + "\n"
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
    """Return the state of a ledger; only the lines since the last call are read."""
    path = folder / LEDGER
    state = _states.setdefault(path, LedgerState())
    try:
        opened = open_regular(path, MAX_LINES)
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            warn_unreadable(path, error)
        state = _states[path] = LedgerState()
        return state
    with opened as file:
        if os.fstat(file.fileno()).st_size < state.num_bytes:  # the ledger was replaced
            state = _states[path] = LedgerState()
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
    """Return the first plan of a ledger; later plans have the same jobs, or the same search space."""
    return next((event for event in events if event["event"] == kind), None)


def job_key(overrides: Sequence[str]) -> str:
    """Return the hash of a job's overrides; their order does not matter."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:16]


def record_event(sweep: Mapping[str, Any] | None, event: str, *, run: Path, **fields: Any) -> None:
    """Record an event of a job; `sweep` is that of its run.json, None outside a sweep."""
    if sweep is None or rank() != 0 or not Path(sweep["dir"]).is_dir():
        return
    folder, number, overrides = Path(sweep["dir"]), sweep["job"], _task_overrides()
    ledger = ledger_state(folder)
    key = ledger.planned.get(number)
    if key is None and event != "started":  # the sweep's process records it, with other overrides
        key = ledger.last.get(number, {}).get("key")
    key = key or job_key(overrides)
    if event == "started":
        inside = run.absolute().is_relative_to(folder.absolute())
        where = run.absolute().relative_to(folder.absolute()) if inside else run
        fields |= {"words": list(map(mask_override, overrides)), "folder": str(where), "pid": os.getpid()}
    try:
        append_event(folder, event, job=number, key=key, **fields)
    except OSError as error:  # run.json has the same status
        log.error("%s: not writable (%s)", folder / LEDGER, error.strerror or error)


def record_failure(folder: Path, number: int, key: str, error: BaseException) -> bool:
    """Record the failure of a job without a run directory; return False when its end is recorded already."""
    if ledger_state(folder).last.get(number, {}).get("event") in {"failed", "killed"}:
        return False
    code = error.exit_code if isinstance(error, FulguriteError) else EXIT_CRASH
    append_event(folder, "failed", job=number, key=key, reason=str(error), exit_code=code)
    return True


def _task_overrides() -> list[str]:
    if not HydraConfig.initialized():
        return []
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return list(map(str, overrides))


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line; None for an incomplete line of a killed process or a full disk."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _has_fields(event) else None


def _has_fields(event: Mapping[str, Any]) -> bool:
    """Return whether an event has the fields that readers use, as this library writes them."""
    jobs: Any = event.get("jobs") if event.get("event") == GRID else [event] if "job" in event else []
    has_jobs = isinstance(jobs, list) and all(isinstance(job, dict) and isinstance(job.get("job"), int) for job in jobs)
    return isinstance(event.get("event"), str) and has_jobs and all(isinstance(job.get("key"), str) for job in jobs)


def _lock(handle: int) -> None:
    """Lock the ledger until it is closed: on NFS, two machines may append at the same offset."""
    with suppress(ImportError, OSError):  # Windows and some file systems have no such locks
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX)


def _is_torn(handle: int) -> bool:
    """Return whether an open ledger ends in an incomplete line."""
    if not (size := os.fstat(handle).st_size):
        return False
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) != b"\n"
