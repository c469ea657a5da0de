"""Starts the real commands as a user does, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from src.base.root import ROOT


def run_door(
    door: str, *overrides: str, logs: Path | None = None, cwd: Path = ROOT, module: bool = False, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run `python src/<door>.py <overrides>` and return what it said.

    Args:
        door: `train` or `eval`.
        overrides: Words of the command line.
        logs: Folder that stands in for `logs/`.
        cwd: Folder the command is started in.
        module: Start it as `python -m src.<door>` instead.
        timeout: Seconds after which the test fails.
    """
    start = ["-m", f"src.{door}"] if module else [str(ROOT / "src" / f"{door}.py")]
    where = [f"paths.log_dir={logs}"] if logs else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    # Hydra reads options like -m only before or after all overrides
    options = [word for word in overrides if word.startswith("-")]
    words = [word for word in overrides if not word.startswith("-")]
    command = [sys.executable, *start, *options, *words, *where]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def only_run(logs: Path, task: str = "train") -> Path:
    """Return the one run directory below `logs`."""
    runs = sorted((logs / task / "runs").iterdir())
    assert len(runs) == 1, runs
    return runs[0]


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
