"""What a measurement is, and how several things are measured side by side."""

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
class Bar:
    """The promise a measurement is held against.

    Attributes:
        limit: In the unit of the measurement.
        at_least: The measurement must reach the limit; False: it must not exceed it.
    """

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Tell whether the promise is kept; a number that is none keeps nothing."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One promise, measured.

    Attributes:
        key: The promise's number in the table of promises, e.g. `P2`.
        what: What was measured, in words.
        unit: Unit of `samples`; `x` is a ratio.
        samples: One value a round.
        bar: The promise; None for a number that is only told.
        parts: What the samples were made from: values by name, one a round.
    """

    key: str
    what: str
    unit: str
    samples: Sequence[float]
    bar: Bar | None = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None where there is none."""
        return None if self.bar is None else self.bar.met(self.value)


def alternate(things: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Call each thing once to warm up, then all of them in turn, round after round: A B C A B C.

    What the machine does beside hits neighbours alike, so numbers of one round can be compared.

    Args:
        things: Calls by name.
        repeats: Rounds that count.

    Returns:
        What each call returned, one value a round.
    """
    for thing in things.values():
        thing()
    found: dict[str, list[T]] = {name: [] for name in things}
    for _ in range(repeats):
        for name, thing in things.items():
            gc.collect()  # nobody pays for what the one before left behind
            found[name].append(thing())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return `above / below` of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def differences(minuends: Sequence[float], subtrahends: Sequence[float]) -> list[float]:
    """Return `minuend - subtrahend` of each round."""
    return [a - b for a, b in zip(minuends, subtrahends, strict=True)]


@dataclass(frozen=True)
class Child:
    """A command that has ended.

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


def run_child(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Child:
    """Run a command to its end and account for it alone, as the system does for a waiting parent (POSIX only).

    Args:
        command: The program and its arguments.
        env: Variables added to this process's own.
        cwd: Where it starts.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=cwd, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(file.seek(0), file.read().decode(errors="replace"))[1] for file in (out, err)]
    return Child(process.returncode, usage.ru_utime + usage.ru_stime, wall, *texts)


def resident() -> dict[str, int]:
    """Return this process's resident bytes: `all`, and of these `own` (private memory) and `mapped` (pages of files).

    Linux tells the two apart. Pages of files are dropped by the system when memory is wanted, private memory is not.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "Rss"))}
    return {"all": sizes["VmRSS"], "own": sizes["RssAnon"], "mapped": sizes["RssFile"]}
