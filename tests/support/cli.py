"""Starts the real commands as a user does, in processes of their own."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.project import ROOT


def run_door(
    door: str,
    *overrides: str,
    logs: Path | None = None,
    cwd: Path = ROOT,
    module: bool = False,
    cold: bool = False,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `python src/<door>.py <overrides>` in a process of its own and return what it said.

    Args:
        door: `train` or `eval`.
        overrides: Words of the command line.
        logs: Folder that stands in for `logs/`.
        cwd: Folder the command is started in.
        module: Start it as `python -m src.<door>` instead.
        cold: Start a new interpreter; else the process finds torch and Lightning imported, as `Started` does.
        timeout: Seconds after which the test fails.
    """
    launches = any(word.startswith(("trainer=ddp", "trainer=fsdp", "trainer=tensor")) for word in overrides)
    if not (cold or module or launches):
        with TemporaryDirectory() as folder:
            words = [*overrides, *([f"paths.log_dir={logs}"] if logs else [])]
            options = [word for word in words if word.startswith("-")]
            return Started(door, [*options, *(word for word in words if word not in options)], Path(folder), cwd).end(
                timeout
            )
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


WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    ["src.train", "src.eval", "fulgurite.engine.build", "fulgurite.resume.restore", "src.data.mnist"]
)


class Started:
    """A door's command in a process of its own that found torch and Lightning imported: a second instead of five.

    Args:
        door: `train` or `eval`.
        words: Words of the command line.
        folder: Gets what the process says, in `out` and `err`.
        cwd: Folder the command is started in.
        env: Variables beside those of this process.
    """

    def __init__(
        self, door: str, words: Sequence[str], folder: Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.args = [door, *words]
        self.out, self.err = folder / "out", folder / "err"
        self.process = WARM.Process(
            target=_enter,
            args=(door, list(words), str(self.out), str(self.err), str(cwd), {**os.environ, **(env or {})}),
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def end(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for the process and return what it said."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"{self.args}: still running after {timeout} s: {self.err.read_text()}")
        return subprocess.CompletedProcess(self.args, self.process.exitcode, self.out.read_text(), self.err.read_text())


def _enter(door: str, words: list[str], out: str, err: str, cwd: str, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update({**env, "OMP_NUM_THREADS": "1", "COLUMNS": "200"})
    multiprocessing.set_start_method("fork", force=True)  # workers of a loader must be children of this process
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    sys.argv = [str(ROOT / "src" / f"{door}.py"), *words]
    entry_points = importlib.import_module(f"src.{door}")
    entry_points.train() if door == "train" else entry_points.evaluate()
