"""The bench: collectives by size, links by pair, processors by rank, and what falls short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.collectives import Measured, measure_all, sizes
from fulgurite.doctor.bench.links import (
    Link,
    Slow,
    gemm_rate,
    links_to_measure,
    ranks_of_slow_links,
    slow_links,
    slow_ranks,
)
from fulgurite.doctor.cluster.facts import FINDING, FINE, LEFT_OUT, NOTE, Check
from fulgurite.doctor.cluster.groups import gloo_group
from fulgurite.doctor.cluster.rank_group import Ranks
from fulgurite.doctor.cluster.watchdog import Watchdog
from fulgurite.doctor.report import Report

RETRIES = 3  # rounds in which links that seem slow are measured again: what was only disturbed comes up


@dataclass(frozen=True)
class Bench:
    """What to measure.

    Attributes:
        collectives: Names of `BUS_FACTOR`.
        max_bytes: Largest message.
        factor: Each size over the one before.
        warmup: Calls before those that are measured.
        calls: Calls that are measured at each size.
        seconds: That these may take at one size.
        link_bytes: Large messages between two ranks.
        links: Whether pairs of ranks are measured.
        least: Bus bandwidth in GB/s that a collective must have from a size on, by name; of `links`, the rate of each.
    """

    collectives: Sequence[str]
    max_bytes: int = 64 * 2**20
    factor: int = 4
    warmup: int = 5
    calls: int = 20
    seconds: float = 10.0
    link_bytes: int = 4 * 2**20
    links: bool = True
    least: dict[str, dict[int, float]] | None = None


def measure_speed(bench: Bench, ranks: Ranks, report: Report, watch: Watchdog, timeout: float) -> None:
    """Measure, and add what was found to the report; the same on all ranks.

    Args:
        bench: What to measure.
        ranks: All of them.
        report: Gets measurements, slow links and ranks, and checks.
        watch: Is told each step.
        timeout: Seconds for groups of single interfaces.
    """
    if ranks.size == 1:
        report.checks.append(
            Check("bench", LEFT_OUT, "needs two ranks or more; start it with torchrun --nproc-per-node 2")
        )
        return
    rates = []
    for _ in range(2):  # a neighbour on the machine may disturb one round
        watch.begin("multiplying on each rank")
        rates.append(gemm_rate(ranks))
    report.slow += slow_ranks([max(both) for both in zip(*rates, strict=True)], report.facts)
    if bench.links:
        _measure_links(bench, ranks, report, watch, timeout)
    for step, measure in measure_all(
        bench.collectives, ranks, sizes(bench.max_bytes, bench.factor), bench.warmup, bench.calls, bench.seconds
    ):
        watch.begin(step)
        report.measured.append(measure())
    for slow in report.slow:
        report.checks.append(Check("slow", FINDING if slow.serious else NOTE, slow.told))
    if not report.slow:
        report.checks.append(Check("slow", FINE, "no link and no rank falls short of the others"))
    report.checks += wrong_ones(report.measured)
    report.checks += below(report, bench.least or {})


def _measure_links(bench: Bench, ranks: Ranks, report: Report, watch: Watchdog, timeout: float) -> None:
    interfaces = report.facts[ranks.rank].interfaces
    groups = {0: ranks}
    if len(interfaces) > 1:
        for place, name in enumerate(interfaces):
            watch.begin(f"making a group over {name} alone")
            groups[place] = replace(ranks, group=gloo_group(timeout, name), device=torch.device("cpu"))
    for step, measure in links_to_measure(report.facts, groups, bench.link_bytes):
        watch.begin(step)
        report.links += measure()
    for _ in range(RETRIES):
        suspects = [one for one, _ in slow_links(report.links, report.facts)]
        again: dict[tuple[int, int, int], Link] = {}
        for step, measure in links_to_measure(report.facts, groups, bench.link_bytes, suspects):
            watch.begin(f"{step} again")
            again |= {(one.source, one.target, one.interface): one for one in measure()}
        report.links = [_better(one, again.get((one.source, one.target, one.interface))) for one in report.links]
    found = slow_links(report.links, report.facts)
    report.slow += [slow for _, slow in found]
    for name in ranks_of_slow_links(report.links, [one for one, _ in found], report.facts):
        report.slow.append(Slow(name, 1.0, f"{name}: every link to or from it is slow, others are not"))


def _better(one: Link, again: Link | None) -> Link:
    return one if again is None or again.rate < one.rate else again


def wrong_ones(measured: Sequence[Measured]) -> list[Check]:
    """Return a finding for each measurement whose result was not right."""
    return [
        Check("bench", FINDING, f"{one.collective} of {format_bytes(one.num_bytes)}: {one.wrong} numbers are wrong")
        for one in measured
        if one.wrong
    ]


def below(report: Report, least: dict[str, dict[int, float]]) -> list[Check]:
    """Return a finding for each collective or link that is slower than asked, or one check that none is.

    Args:
        report: With what was measured.
        least: GB/s by size in bytes by collective; a bandwidth holds from its size up to the next one given.
    """
    if not least:
        return []
    short = []
    for one in report.measured:
        given = [(size, rate) for size, rate in least.get(one.collective, {}).items() if size <= one.num_bytes]
        asked = max(given)[1] if given else 0.0
        if one.bus < asked:
            name = f"{one.collective} of {format_bytes(one.num_bytes)}"
            short.append(f"{name}: {one.bus:.3g} GB/s on the bus, below {asked:g}")
    wanted = least.get("links", {}).get(0)
    for link in report.links:
        if wanted is not None and link.rate < wanted:
            source, target = report.facts[link.source], report.facts[link.target]
            over = source.interfaces[link.interface]
            short.append(f"{source.name} -> {target.name} over {over}: {link.rate:.3g} GB/s, below {wanted:g}")
    return [Check("threshold", FINDING, line) for line in short] or [Check("threshold", FINE, "nothing is below it")]
