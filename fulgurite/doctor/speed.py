"""Measure collectives by size, links by pair and processors by rank, and report the slow ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.collectives import Measurement, measure_all, message_sizes
from fulgurite.doctor.bench.links import (
    Link,
    SlowComponent,
    find_slow_links,
    find_slow_ranks,
    gemm_rate,
    iter_links,
    link_name,
    ranks_with_slow_links,
)
from fulgurite.doctor.cluster.groups import new_gloo_group
from fulgurite.doctor.cluster.rank_group import RankGroup
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, LEFT_OUT, NOTE, Check
from fulgurite.doctor.cluster.watchdog import Watchdog
from fulgurite.doctor.report import Report

NUM_RETRIES = 3  # repeats of slow links: another process may have disturbed the first measurement


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        collectives: Names of `BUS_FACTOR`.
        max_bytes: Largest message.
        factor: Ratio of successive message sizes.
        warmup: Warm-up calls for each size.
        calls: Measured calls for each size.
        seconds: Time limit for each size.
        link_bytes: Size of the large messages between two ranks.
        links: Whether to measure pairs of ranks.
        thresholds: Minimum bus bandwidth in GB/s by collective and size; of `links`, the minimum of each link.
    """

    collectives: Sequence[str]
    max_bytes: int = 64 * 2**20
    factor: int = 4
    warmup: int = 5
    calls: int = 20
    seconds: float = 10.0
    link_bytes: int = 4 * 2**20
    links: bool = True
    thresholds: dict[str, dict[int, float]] | None = None


def measure_speed(bench: BenchOptions, ranks: RankGroup, report: Report, watchdog: Watchdog, timeout: float) -> None:
    """Add measurements and their checks to the report, the same on all ranks.

    Args:
        bench: What to measure.
        ranks: All ranks.
        report: Gets measurements, slow links and ranks, and checks.
        watchdog: Gets the name of each step.
        timeout: Seconds, of the groups over one interface.
    """
    if ranks.size == 1:
        detail = "needs two ranks or more; start it with torchrun --nproc-per-node 2"
        report.checks.append(Check("bench", LEFT_OUT, detail))
        return
    rates = []
    for _ in range(2):  # another process may disturb one round
        watchdog.start_step("multiplying matrices on each rank")
        rates.append(gemm_rate(ranks))
    report.slow += find_slow_ranks([max(both) for both in zip(*rates, strict=True)], report.facts)
    if bench.links:
        _measure_links(bench, ranks, report, watchdog, timeout)
    sizes = message_sizes(bench.max_bytes, bench.factor)
    for step, measure in measure_all(bench.collectives, ranks, sizes, bench.warmup, bench.calls, bench.seconds):
        watchdog.start_step(step)
        report.measured.append(measure())
    report.checks += [Check("slow", FINDING if slow.is_finding else NOTE, slow.message) for slow in report.slow]
    if not report.slow:
        report.checks.append(Check("slow", FINE, "no link and no rank is slower than the others"))
    report.checks += wrong_results(report.measured)
    report.checks += below_thresholds(report, bench.thresholds or {})


def _measure_links(bench: BenchOptions, ranks: RankGroup, report: Report, watchdog: Watchdog, timeout: float) -> None:
    interfaces = report.facts[ranks.rank].interfaces
    groups = {0: ranks}
    if len(interfaces) > 1:
        for index, name in enumerate(interfaces):
            watchdog.start_step(f"creating a group over {name} only")
            groups[index] = replace(ranks, group=new_gloo_group(timeout, name), device=torch.device("cpu"))
    for step, measure in iter_links(report.facts, groups, bench.link_bytes):
        watchdog.start_step(step)
        report.links += measure()
    for _ in range(NUM_RETRIES):
        suspects = [link for link, _ in find_slow_links(report.links, report.facts)]
        repeated: dict[tuple[int, int, int], Link] = {}
        for step, measure in iter_links(report.facts, groups, bench.link_bytes, suspects):
            watchdog.start_step(f"{step} again")
            repeated |= {link.key: link for link in measure()}
        report.links = [max(link, repeated.get(link.key, link), key=lambda one: one.rate) for link in report.links]
    found = find_slow_links(report.links, report.facts)
    report.slow += [slow for _, slow in found]
    for name in ranks_with_slow_links(report.links, [link for link, _ in found], report.facts):
        report.slow.append(SlowComponent(name, 1.0, f"{name}: all its links are slow, links of other ranks are not"))


def wrong_results(measured: Sequence[Measurement]) -> list[Check]:
    """Return a finding for each measurement with wrong results."""
    return [
        Check("bench", FINDING, f"{one.collective} of {format_bytes(one.num_bytes)}: {one.wrong} numbers are wrong")
        for one in measured
        if one.wrong
    ]


def below_thresholds(report: Report, thresholds: dict[str, dict[int, float]]) -> list[Check]:
    """Return a finding for each collective or link below its threshold, or one fine check.

    Args:
        report: With the measurements.
        thresholds: GB/s by collective and size in bytes; one holds from its size up to the next larger size.
    """
    if not thresholds:
        return []
    lines = []
    for one in report.measured:
        given = [pair for pair in thresholds.get(one.collective, {}).items() if pair[0] <= one.num_bytes]
        minimum = max(given)[1] if given else 0.0
        if one.bus < minimum:
            name = f"{one.collective} of {format_bytes(one.num_bytes)}"
            lines.append(f"{name}: {one.bus:.3g} GB/s on the bus, below {minimum:g}")
    minimum = thresholds.get("links", {}).get(0, 0.0)
    lines += [
        f"{link_name(link, report.facts)}: {link.rate:.3g} GB/s, below {minimum:g}"
        for link in report.links
        if link.rate < minimum
    ]
    return [Check("threshold", FINDING, line) for line in lines] or [Check("threshold", FINE, "nothing is below it")]
