"""Counters of the Prometheus callback, and the thread that pushes metrics or writes them to a file."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
SUCCESS, FAILURE = "success", "failure"
TIMEOUT_SECONDS = 5.0  # of one push


@dataclass
class Durations:
    """A histogram of seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulated(self) -> list[tuple[str, float]]:
        """Return each upper bound with the number of durations up to it."""
        bounds = [*map(str, BUCKETS), "+Inf"]
        return [(bound, sum(self.counts[: at + 1])) for at, bound in enumerate(bounds)]


@dataclass
class Reloads:
    """The live edits of one source."""

    counts: dict[str, int] = field(default_factory=lambda: {SUCCESS: 0, FAILURE: 0})
    durations: Durations = field(default_factory=Durations)


class Sender:
    """Pushes a registry to a Pushgateway and writes it to a file, in a thread; failures are one warning each.

    Args:
        registry: A `CollectorRegistry` of prometheus_client.
        gateway: Address of the Pushgateway; None for none.
        job: Name of the job there.
        grouping: Labels that distinguish this process from others there; its rank also names the file.
        textfile: The file; None for none.
    """

    def __init__(
        self, registry: Any, gateway: str | None, job: str, grouping: Mapping[str, str], textfile: Path | None
    ) -> None:
        self.registry, self.gateway, self.job, self.grouping = registry, gateway, job, dict(grouping)
        number = self.grouping["rank"]
        self.textfile = textfile
        if textfile is not None and number != "0":
            self.textfile = textfile.with_name(f"{textfile.stem}-rank{number}{textfile.suffix}")
        self._failed: set[str] = set()

    def start(self, interval_seconds: float) -> Callable[[], None]:
        """Start the thread, and return the function that stops it and deletes what was sent."""
        is_over = threading.Event()

        def repeat() -> None:
            self.send()
            while not is_over.wait(interval_seconds):
                self.send()

        thread = threading.Thread(target=repeat, name="prometheus", daemon=True)
        thread.start()

        def end() -> None:
            is_over.set()
            thread.join()
            self.delete()

        return end

    def send(self) -> None:
        """Push and write once."""
        from prometheus_client import push_to_gateway, write_to_textfile

        if self.gateway is not None:
            arguments = (self.gateway, self.job, self.registry, self.grouping, TIMEOUT_SECONDS)
            self._attempt("gateway", push_to_gateway, *arguments)
        if self.textfile is not None:
            self._attempt("textfile", write_to_textfile, str(self.textfile), self.registry)

    def delete(self) -> None:
        """Delete what was pushed, and the file."""
        from prometheus_client import delete_from_gateway

        if self.gateway is not None:
            self._attempt("gateway", delete_from_gateway, self.gateway, self.job, self.grouping, TIMEOUT_SECONDS)
        if self.textfile is not None:
            self._attempt("textfile", self.textfile.unlink, missing_ok=True)

    def _attempt(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a monitoring that fails must not stop the training
            if name not in self._failed:
                log.warning("callbacks.prometheus.%s: %s. The training continues without it.", name, error)
            self._failed.add(name)
