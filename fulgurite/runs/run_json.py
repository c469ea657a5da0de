"""Write the end of a run into its `run.json` from outside the run."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from fulgurite.core.files import write_atomic
from fulgurite.runs.layout import RECORD
from fulgurite.runs.run_directory import RunDirectory


def mark_ended(folder: Path, status: str, reason: str, exit_code: int) -> bool:
    """Record the end of a run whose own process cannot write it.

    Returns:
        False, and nothing is written, when the run has ended already or has no record.
    """
    run = RunDirectory.of(folder)
    if run is None or run.record.get("status") != "running":
        return False
    record = run.record | {"status": status, "reason": reason, "exit_code": exit_code, "end": utc_now()}
    write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return True


def utc_now() -> str:
    """Return the time in ISO 8601, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
