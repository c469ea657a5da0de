"""Progress of a running sweep: a live table, or one line per event."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import length_hint
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import returned_value
from fulgurite.config.metric_names import is_minimized
from fulgurite.core.formatting import format_duration, format_number
from fulgurite.core.redact import mask_override
from fulgurite.sweeps.dispatch import NumberedJob

NOT_SHOWN = ("hydra.", "resume.", "ckpt_")  # prefixes of overrides that are not values of a job


@dataclass
class StartedJob:
    """The shown overrides of a running job, and its start by the monotonic clock."""

    values: str
    start: float


class Progress:
    """Counts the jobs of `slots` slots by state, and prints them to stderr."""

    def __init__(self, config: DictConfig, slots: int) -> None:
        self.slots = slots
        self.constant = set(_constant_overrides(config))
        self.metric = config.get("optimized_metric")
        direction = config.hydra.sweeper.get("direction")
        self.minimize = direction == "minimize" if isinstance(direction, str) else is_minimized(str(self.metric))
        self.running: dict[int, StartedJob] = {}
        self.durations: list[float] = []  # per finished job
        self.failed = self.killed = 0
        self.waiting = 0  # jobs taken from the sweeper that have no slot yet
        self.best: tuple[float, int] | None = None
        self._live: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # no refresh thread: a forked job would inherit its locks
            self._live = self._stack.enter_context(
                Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._live = None

    def started(self, number: int, overrides: Sequence[str], how: str = "started") -> None:
        """Report that a job was started; `how` replaces the verb."""
        values = [item for item in overrides if item not in self.constant and not item.startswith(NOT_SHOWN)]
        self.running[number] = StartedJob(" ".join(map(mask_override, values)), time.monotonic())
        if self._live is None:
            self._print(f"sweep: job {number} {how}{self._values(number)}")

    def ended(self, number: int, returned: JobReturn, jobs: Iterator[NumberedJob]) -> None:
        """Report the result of a job."""
        values, start = self._values(number), self.running.pop(number).start
        seconds = time.monotonic() - start
        if returned.status == JobStatus.COMPLETED:
            self.durations.append(seconds)
            value = returned_value(returned)
            pruned = self.metric and value is None  # a finished run has the metric
            how = "pruned" if pruned else f"done{self._format_metric(number, value)}"
        else:
            outcome = returned_value(returned).outcome
            if outcome.status == "killed":
                self.killed += 1
            else:
                self.failed += 1
            how = f"{outcome.status}: {outcome.reason}"
        self._print(f"sweep: job {number} {how}{values}, {format_duration(seconds)}; {self.summary(jobs)}")

    def show(self, jobs: Iterator[NumberedJob]) -> None:
        """Draw the table on a terminal."""
        if self._live is None:
            return
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("job", "values", "time")
        for number, now in sorted(self.running.items()):
            table.add_row(str(number), Text(now.values), format_duration(time.monotonic() - now.start))
        self._live.update(Group(Text(self.summary(jobs), style="bold"), table), refresh=True)

    def summary(self, jobs: Iterator[NumberedJob]) -> str:
        """Return e.g. `3 of 12 done, 2 running, 1 failed, best val/acc 0.93 (job 2)`."""
        remaining = length_hint(jobs) + self.waiting
        total = len(self.durations) + self.failed + self.killed + len(self.running) + remaining
        parts = [f"{len(self.durations)} of {total} done", f"{len(self.running)} running", f"{self.failed} failed"]
        if self.killed:
            parts.append(f"{self.killed} killed")
        if self.best is not None:
            parts.append(f"best {self.metric} {format_number(self.best[0])} (job {self.best[1]})")
        if (left := self._seconds_left(remaining)) is not None:
            parts.append(f"{format_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, remaining: int) -> float | None:
        """Estimate the remaining seconds from the mean duration of finished jobs."""
        if not self.durations or not (self.running or remaining):
            return None
        mean, now = sum(self.durations) / len(self.durations), time.monotonic()
        running = [max(0.0, mean - (now - job.start)) for job in self.running.values()]
        return max([(sum(running) + remaining * mean) / self.slots, *running])

    def _format_metric(self, number: int, value: Any) -> str:
        """Return a job's metric as text, and keep it if it is the best."""
        if not self.metric or not isinstance(value, (int, float)):
            return ""
        is_better = self.best is None or (value < self.best[0] if self.minimize else value > self.best[0])
        if is_better and not math.isnan(value):
            self.best = float(value), number
        return f", {self.metric} {format_number(value)}"

    def _values(self, number: int) -> str:
        values = self.running[number].values
        return f" ({values})" if values else ""

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _constant_overrides(config: DictConfig) -> Iterator[str]:
    """Yield the single-valued overrides of a sweep, as its jobs contain them."""
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False) or []
    assert isinstance(given, list)
    for override in OverridesParser.create().parse_overrides([*map(str, given)]):
        if not override.is_sweep_override():
            yield f"{override.get_key_element()}={override.get_value_element_as_str()}"  # as written by Hydra's grid
            yield str(override.input_line)  # as written by a search
