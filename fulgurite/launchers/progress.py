"""How far a sweep is, while it runs: a table that is kept up to date at a terminal, one line an event elsewhere."""

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

from fulgurite.core.formatting import format_duration
from fulgurite.core.metric_names import is_minimized
from fulgurite.core.redact import mask_override
from fulgurite.sweeps.dispatch import NumberedJob

NOT_SHOWN = ("hydra.", "resume.", "ckpt_")  # words that are no values of a job


@dataclass
class StartedJob:
    """A job that runs: its values, and when it was started by the monotonic clock."""

    values: str
    start: float


class Progress:
    """Counts what becomes of jobs and shows it on standard error.

    Args:
        config: The sweep's, with Hydra's part.
        slots: Jobs that run at the same time.
    """

    def __init__(self, config: DictConfig, slots: int) -> None:
        self.slots = slots
        self.given = set(_constant_overrides(config))
        self.metric = config.get("optimized_metric")
        direction = config.hydra.sweeper.get("direction")
        self.least = direction == "minimize" if isinstance(direction, str) else is_minimized(str(self.metric))
        self.now: dict[int, StartedJob] = {}
        self.seconds: list[float] = []  # of the jobs that were done
        self.failed = 0
        self.waiting = 0  # jobs that were asked for and have no place yet
        self.best: tuple[float, int] | None = None
        self._live: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # drawn by hand: a thread that draws would be a lock held in a job's copy of this process
            self._live = self._stack.enter_context(
                Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._live = None

    def started(self, number: int, words: Sequence[str], how: str = "started") -> None:
        """Tell that a job was started, or what else `how` says."""
        values = [word for word in words if word not in self.given and not word.startswith(NOT_SHOWN)]
        self.now[number] = StartedJob(" ".join(map(mask_override, values)), time.monotonic())
        if self._live is None:
            self._say(f"sweep: job {number} {how}{self._values(number)}")

    def ended(self, number: int, returned: JobReturn, jobs: Iterator[NumberedJob]) -> None:
        """Tell how a job ended.

        Args:
            number: Of the job.
            returned: By its process.
            jobs: Those to come.
        """
        values, start = self._values(number), self.now.pop(number).start
        seconds = time.monotonic() - start
        if returned.status == JobStatus.COMPLETED:
            self.seconds.append(seconds)
            pruned = self.metric and returned._return_value is None  # a run that is done has the metric
            how = "pruned" if pruned else f"done{self._judge(number, returned._return_value)}"
        else:
            self.failed += 1
            outcome = returned._return_value.outcome
            how = f"{outcome.status}: {outcome.reason}"
        self._say(f"sweep: job {number} {how}{values}, {format_duration(seconds)}; {self.summary(jobs)}")

    def show(self, jobs: Iterator[NumberedJob]) -> None:
        """Draw the table, where there is one."""
        if self._live is None:
            return
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("job", "values", "time")
        for number, now in sorted(self.now.items()):
            table.add_row(str(number), now.values, format_duration(time.monotonic() - now.start))
        self._live.update(Group(Text(self.summary(jobs), style="bold"), table), refresh=True)

    def summary(self, jobs: Iterator[NumberedJob]) -> str:
        """Return e.g. `3 of 12 done, 2 running, 1 failed, best val/acc 0.9312 (job 2), 40 s left`."""
        to_come = length_hint(jobs) + self.waiting
        total = len(self.seconds) + self.failed + len(self.now) + to_come
        parts = [f"{len(self.seconds)} of {total} done", f"{len(self.now)} running", f"{self.failed} failed"]
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best[0]:.4f} (job {self.best[1]})")
        if (left := self._seconds_left(to_come)) is not None:
            parts.append(f"{format_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, to_come: int) -> float | None:
        """Return the seconds to the end if the jobs to come take as long as those done; None where there are none."""
        if not self.seconds or not (self.now or to_come):
            return None
        mean, now = sum(self.seconds) / len(self.seconds), time.monotonic()
        running = [max(0.0, mean - (now - job.start)) for job in self.now.values()]
        return max([(sum(running) + to_come * mean) / self.slots, *running])

    def _judge(self, number: int, value: Any) -> str:
        """Return a job's metric, and remember it where it is the best."""
        if not self.metric or not isinstance(value, (int, float)):
            return ""
        if not math.isnan(value) and (
            self.best is None or (value < self.best[0] if self.least else value > self.best[0])
        ):
            self.best = float(value), number
        return f", {self.metric} {value:.4f}"

    def _values(self, number: int) -> str:
        values = self.now[number].values
        return f" ({values})" if values else ""

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _constant_overrides(config: DictConfig) -> Iterator[str]:
    """Yield the words of a sweep's command line that have one value, as they are among a job's."""
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False) or []
    assert isinstance(given, list)
    for word in OverridesParser.create().parse_overrides([*map(str, given)]):
        if not word.is_sweep_override():
            yield f"{word.get_key_element()}={word.get_value_element_as_str()}"  # as Hydra's grid writes it
            yield str(word.input_line)  # as a search leaves it
