"""Write the end of a run into its `run.json` from outside the run."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite.core.files import write_atomic
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.runs.layout import RECORD

if TYPE_CHECKING:
    pass

log = RankedLogger(__name__)


def mark_ended(folder: Path, status: str, reason: str, exit_code: int) -> bool:
    """Write into the run.json of a run that cannot do so itself how it ended.

    Returns:
        False when it has ended already, or has no record; nothing is written then.
    """
    path = folder / RECORD
    facts = json.loads(path.read_text()) if path.is_file() else {}
    if facts.get("status") != "running":
        return False
    facts |= {"status": status, "reason": reason, "exit_code": exit_code, "end": _now()}
    write_atomic(path, json.dumps(facts, indent=2) + "\n")
    return True


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
