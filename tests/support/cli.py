"""Run the real commands as a user does, each in its own process."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.project import ROOT


def run_cli(
    entry_point: str,
    *overrides: str,
    logs: Path | None = None,
    cwd: Path = ROOT,
    module: bool = False,
    cold: bool = False,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `python src/<entry_point>.py <overrides>` in its own process and return its output.

    Args:
        entry_point: `train` or `eval`.
        overrides: Overrides and options.
        logs: Replaces `logs/`.
        cwd: Working directory of the command.
        module: Run the entry point as `python -m src.<entry_point>` does.
        cold: Start a new interpreter instead of a `WarmProcess`.
        timeout: Seconds after which the test fails.
    """
    options = [word for word in overrides if word.startswith("-")]
    # Hydra reads options like -m only before or after all overrides
    arguments = [*options, *(word for word in overrides if word not in options)]
    if logs:
        arguments.append(f"paths.log_dir={logs}")
    starts_ranks = any(word.startswith(("trainer=ddp", "trainer=fsdp", "trainer=tensor")) for word in overrides)
    if not (cold or starts_ranks):
        with TemporaryDirectory() as folder:
            return WarmProcess(entry_point, arguments, Path(folder), cwd, module=module).wait(timeout)
    program = ["-m", f"src.{entry_point}"] if module else [str(ROOT / "src" / f"{entry_point}.py")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, *program, *arguments]
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
    [
        "src.train",
        "src.eval",
        "fulgurite.engine.build",
        "fulgurite.resume.restore",
        "src.data.mnist",
        "tests.support.shapes.warm",
    ]
)


class WarmProcess:
    """An entry point in its own process, with torch and Lightning imported: one second to start instead of five.

    Args:
        entry_point: `train` or `eval`.
        arguments: Overrides and options.
        folder: Receives the output, in `out` and `err`.
        cwd: Working directory of the command.
        env: Variables beside those of this process.
        module: Run the entry point as `python -m src.<entry_point>` does.
        largest_file: Bytes to which each file that it writes is limited, as on a full disk.
    """

    def __init__(
        self,
        entry_point: str,
        arguments: Sequence[str],
        folder: Path,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        module: bool = False,
        largest_file: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.args = [entry_point, *arguments]
        self.out, self.err = folder / "out", folder / "err"
        environment = {**os.environ, **(env or {})}
        self.process = WARM.Process(
            target=_run,
            args=(
                entry_point,
                list(arguments),
                str(self.out),
                str(self.err),
                str(cwd),
                environment,
                module,
                largest_file,
            ),
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for the process and return its output."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"{self.args}: still running after {timeout} s: {self.err.read_text()}")
        return subprocess.CompletedProcess(self.args, self.process.exitcode, self.out.read_text(), self.err.read_text())


def run_warm_proof(overrides: Sequence[str], output: Path) -> int:
    """Train in a warm process, in the place of `fulgurite.exact_resume.proof.process.start_process`."""
    done = WarmProcess("train", overrides, output.with_suffix("")).wait(timeout=240)
    output.write_text(done.stdout + done.stderr)
    return done.returncode


def _run(
    entry_point: str,
    arguments: list[str],
    out: str,
    err: str,
    cwd: str,
    env: dict[str, str],
    module: bool,
    largest_file: int | None,
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update({**env, "OMP_NUM_THREADS": "1", "COLUMNS": "200"})
    multiprocessing.set_start_method("fork", force=True)  # DataLoader workers must be children of this process
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    if largest_file is not None:
        import resource  # POSIX only

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = [str(ROOT / "src" / f"{entry_point}.py"), *arguments]
    if module:
        sys.modules.pop(f"src.{entry_point}")  # a new interpreter has not imported it
        runpy.run_module(f"src.{entry_point}", run_name="__main__", alter_sys=True)
        return
    script = importlib.import_module(f"src.{entry_point}")
    script.train() if entry_point == "train" else script.evaluate()
