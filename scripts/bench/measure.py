"""Measure several functions in turns and compare them round by round."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]


T = TypeVar("T")


@dataclass(frozen=True)
class Threshold:
    """The threshold of a measurement.

    Attributes:
        limit: In the unit of the measurement.
        at_least: Whether the limit is a minimum.
    """

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether a value meets the threshold; NaN does not."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        key: Number of the threshold, e.g. `P2`.
        what: Description of the measurement.
        unit: Unit of `samples`; `x` is a ratio.
        samples: One value for each round.
        bar: The threshold; None for information only.
        parts: The measured values by name, one for each round.
    """

    key: str
    what: str
    unit: str
    samples: Sequence[float]
    bar: Threshold | None = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def kept(self) -> bool | None:
        """Whether the threshold is met; None without one."""
        return None if self.bar is None else self.bar.met(self.value)


def measure_in_turns(functions: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Call each function once to warm up, then all in turns: A B C A B C.

    The load of the machine affects neighbouring calls alike, so values of one round are comparable.

    Args:
        functions: By name.
        repeats: Number of measured rounds.

    Returns:
        The results by name, one for each round.
    """
    for function in functions.values():
        function()
    found: dict[str, list[T]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            gc.collect()  # the previous call must not leave work to this one
            found[name].append(function())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return `above / below` of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def differences(minuends: Sequence[float], subtrahends: Sequence[float]) -> list[float]:
    """Return `minuend - subtrahend` of each round."""
    return [a - b for a, b in zip(minuends, subtrahends, strict=True)]


@dataclass(frozen=True)
class CompletedChild:
    """A finished command.

    Attributes:
        exit_code: 0 is success.
        cpu: Seconds of CPU that it and its own children used, user and system.
        wall: Seconds from its start to its end.
        out: Standard output.
        err: Standard error.
    """

    exit_code: int
    cpu: float
    wall: float
    out: str
    err: str


def run_child(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> CompletedChild:
    """Run a command and measure its CPU and wall time (POSIX only).

    Args:
        command: The program and its arguments.
        env: Additional environment variables.
        cwd: Working directory.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(file.seek(0), file.read().decode(errors="replace"))[1] for file in (out, err)]
    return CompletedChild(process.returncode, usage.ru_utime + usage.ru_stime, wall, *texts)


def resident_bytes() -> dict[str, int]:
    """Return the resident bytes of this process: `all`, `own` (private) and `mapped` (pages of files).

    Linux can drop pages of files under memory pressure, but not private memory.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "Rss"))}
    return {"all": sizes["VmRSS"], "own": sizes["RssAnon"], "mapped": sizes["RssFile"]}
