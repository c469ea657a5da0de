"""Start several ranks on this machine, in processes that have torch imported."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.support.cli import WARM


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def each_rank(size: int, port: int | None = None) -> list[dict[str, str]]:
    """Return the environment that a launcher would give each rank."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **common} for rank in range(size)]


class DoctorProcesses:
    """`fulgurite/doctor/cli.py` on several ranks.

    Args:
        folder: For the output of each rank.
        envs: Variables of each rank, as `each_rank` gives them.
        words: Of the command line, the same for all, or a list for each.
    """

    def __init__(self, folder: Path, envs: Sequence[Mapping[str, str]], *words: str | Sequence[str]) -> None:
        self.files = [folder / f"rank-{number}" for number in range(len(envs))]
        of_each = [
            [str(word) for word in words] if all(isinstance(word, str) for word in words) else list(words[number])
            for number in range(len(envs))
        ]
        self.processes: list[BaseProcess] = []
        for env, mine, file in zip(envs, of_each, self.files, strict=True):
            self.processes.append(WARM.Process(target=_doctor, args=(mine, dict(env), str(file))))
            self.processes[-1].start()

    def end(self, timeout: float = 60) -> tuple[list[int | None], list[str]]:
        """Wait for all and return their exit codes, None for one that hangs, and what they said."""
        for process in self.processes:
            process.join(timeout)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes, [file.read_text() for file in self.files]


def _doctor(words: list[str], env: dict[str, str], file: str) -> None:
    os.environ.update({**env, "COLUMNS": "200"})
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(out, stream)
    raise SystemExit(importlib.import_module("fulgurite.doctor.cli").main(words))


def in_ranks(size: int, work: Callable[..., Any], *args: Any) -> list[int | None]:
    """Call `work(rank, *args)` in `size` processes and return their exit codes."""
    processes = [WARM.Process(target=work, args=(rank, *args)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
