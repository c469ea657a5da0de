"""Count the reloads of a store by loader and result, and measure them; export them to Prometheus on request."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)  # seconds
SUCCESS, FAILURE = "success", "failure"


@dataclass
class ReloadStats:
    """Reloads of one loader that its watcher started; the first load is none.

    Attributes:
        counts: Number by result, `success` and `failure`; both are there from the start.
        seconds: Of all reloads together, with fetching, retries and hooks.
        buckets: Number of reloads by duration: at most each bound of `BUCKETS`, and longer.
    """

    counts: dict[str, int] = field(default_factory=lambda: {SUCCESS: 0, FAILURE: 0})
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


class ReloadMetrics:
    """The reloads of a store and its groups.

    Example:
        >>> store.metrics.stats("root", "live.yaml").counts
        {'success': 3, 'failure': 1}
    """

    def __init__(self) -> None:
        self._stats: dict[tuple[str, str], ReloadStats] = {}
        self._lock = threading.Lock()

    def stats(self, store: str, loader: str) -> ReloadStats:
        """Return the reloads of a loader of a store, by their names."""
        return self._stats.setdefault((store, loader), ReloadStats())

    def observe(self, store: str, loader: str, result: str, seconds: float) -> None:
        """Count a reload."""
        stats = self.stats(store, loader)
        with self._lock:
            stats.counts[result] += 1
            stats.seconds += seconds
            stats.buckets[bisect_left(BUCKETS, seconds)] += 1

    def register(self, registry: Any = None) -> None:
        """Let Prometheus collect `config_reloads_total` and `config_reload_duration_seconds` of all loaders.

        Args:
            registry: A `CollectorRegistry` of prometheus_client, one for each store; None: the process-wide one.

        Raises:
            UserError: prometheus_client is not installed.
        """
        from fulgurite.sources.reader import need_library

        library = need_library("prometheus_client", "prometheus", "metrics of a store")
        (library.REGISTRY if registry is None else registry).register(self)

    def collect(self) -> Iterator[Any]:
        """Yield the metrics as prometheus_client wants them."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        labels = ["store", "source"]
        reloads = CounterMetricFamily(
            "config_reloads", "Reloads of config by source and result.", labels=[*labels, "result"]
        )
        durations = HistogramMetricFamily(
            "config_reload_duration_seconds", "Duration of reloads, with fetching, retries and hooks.", labels=labels
        )
        with self._lock:
            for names, stats in [*self._stats.items()]:
                for result, count in stats.counts.items():
                    reloads.add_metric([*names, result], count)
                sums = [sum(stats.buckets[: at + 1]) for at in range(len(stats.buckets))]
                bounds = [*map(str, BUCKETS), "+Inf"]
                durations.add_metric(names, [*zip(bounds, sums, strict=True)], stats.seconds)
        yield reloads
        yield durations
