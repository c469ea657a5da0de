"""Where the project is, from whatever folder or file it was started."""

from __future__ import annotations

import os
from pathlib import Path

from src.base.errors import UserError

MARK = ".project-root"


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` that holds `.project-root`.

    Args:
        start: Where to begin; this file's folder when not given.

    Raises:
        UserError: No folder up to the file system's root holds the mark.
    """
    begin = (start or Path(__file__)).resolve()
    for folder in (begin, *begin.parents):
        if (folder / MARK).is_file():
            return folder
    raise UserError(f"{begin}: no folder above it holds {MARK}; restore that file at the project's root")


ROOT = find_root()


def prepare_environment() -> None:
    """Load `.env` from the root (variables that are already set win) and tell configs the root as `PROJECT_ROOT`."""
    os.environ["PROJECT_ROOT"] = str(ROOT)
    if (ROOT / ".env").is_file():
        from dotenv import load_dotenv

        load_dotenv(ROOT / ".env")
