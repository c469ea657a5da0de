"""Find the project's root from the script that was started, and prepare its environment."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from fulgurite.core.errors import UserError

MARK = ".project-root"
VARIABLE = "PROJECT_ROOT"


@cache
def project_root() -> Path:
    """Return the folder of the project that this process works for.

    The first of these that is there: the folder in the environment variable `PROJECT_ROOT`, the nearest folder above
    the started script that holds `.project-root`, and the nearest such folder above the current one. A script of the
    Python environment (pytest, Jupyter, a console script) says nothing about the project and is skipped. The answer
    is cached; `project_root.cache_clear()` forgets it.

    Raises:
        UserError: `PROJECT_ROOT` names a folder without `.project-root` or another project than the started script's,
            or no folder holds that file.
    """
    script = _started_script()
    of_script = _nearest_root(script.parent) if script else None
    if named := os.environ.get(VARIABLE):
        root = Path(named).expanduser().resolve()
        if not (root / MARK).is_file():
            raise UserError(f"{VARIABLE}={named}: the folder holds no {MARK}. Correct the variable, or unset it.")
        if of_script not in {None, root}:
            raise UserError(f"{VARIABLE}={named}: {script} belongs to the project {of_script}. Unset the variable.")
        return root
    if (found := of_script or _nearest_root(Path.cwd())) is not None:
        return found
    raise UserError(
        f"{Path.cwd()}: no folder above it holds {MARK}. Start from inside a project, or create that file at its root."
    )


def _nearest_root(start: Path) -> Path | None:
    return next((folder for folder in (start, *start.parents) if (folder / MARK).is_file()), None)


def _started_script() -> Path | None:
    """Return the started script; None for a prompt, `-c`, and scripts of the Python environment."""
    script = Path(sys.argv[0] if sys.argv else "").absolute()
    if not script.is_file() or script.is_relative_to(sys.prefix) or script.is_relative_to(sys.base_prefix):
        return None
    return script.resolve()


def prepare_environment() -> None:
    """Load `.env` from the root and export the root as `PROJECT_ROOT`, which configs read.

    Variables that are set already win over `.env`.
    """
    root = project_root()
    os.environ[VARIABLE] = str(root)
    if (root / ".env").is_file():
        from dotenv import load_dotenv

        load_dotenv(root / ".env")
