"""Measure collectives, links and processors, and report the slow ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import torch

from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.collectives import measure_collective, message_sizes
from fulgurite.doctor.bench.links import (
    SlowComponent,
    find_slow_links,
    find_slow_ranks,
    gemm_rate,
    link_name,
    measure_links,
    ranks_with_slow_links,
)
from fulgurite.doctor.cluster.options import Options
from fulgurite.doctor.cluster.rank_group import RankGroup, new_gloo_group
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, LEFT_OUT, NOTE, Check
from fulgurite.doctor.cluster.watchdog import Watchdog
from fulgurite.doctor.report import Report

NUM_RETRIES = 3  # repeats of slow links: another process may have disturbed the first measurement


def measure_speed(options: Options, ranks: RankGroup, report: Report, watchdog: Watchdog) -> None:
    """Add measurements and their checks to the report, the same on all ranks."""
    if ranks.size == 1:
        detail = "needs two ranks or more; start it with torchrun --nproc-per-node 2"
        report.checks.append(Check("bench", LEFT_OUT, detail))
        return
    sizes = message_sizes(options.max_bytes, options.factor)
    if ranks.rank == 0:
        sys.stderr.write(
            f"bench: {len(options.collectives) * len(sizes)} measurements, at most {2 * options.seconds:g} s each, "
            "under 1 s on fast links. Shorten it with --collectives, --max-bytes and --seconds.\n"
        )
        sys.stderr.flush()
    rates = []
    for _ in range(2):  # another process may disturb one round
        watchdog.start_step("multiplying matrices on each rank")
        rates.append(gemm_rate(ranks))
    report.slow += find_slow_ranks([max(both) for both in zip(*rates, strict=True)], report.facts)
    if not options.no_links:
        _measure_links(options, ranks, report, watchdog)
    for collective in options.collectives:
        for num_bytes in sizes:
            watchdog.start_step(f"{collective} of {format_bytes(num_bytes)}")
            report.measured.append(measure_collective(collective, ranks, num_bytes, options))
    slow = [Check("slow", FINDING if one.is_finding else NOTE, one.message) for one in report.slow]
    report.checks += slow or [Check("slow", FINE, "no link and no rank is slower than the others")]
    report.checks += [
        Check("bench", FINDING, f"{one.collective} of {format_bytes(one.num_bytes)}: {one.wrong} numbers are wrong")
        for one in report.measured
        if one.wrong
    ]
    report.checks += below_thresholds(report, options.threshold or {})


def _measure_links(options: Options, ranks: RankGroup, report: Report, watchdog: Watchdog) -> None:
    facts, interfaces, groups = report.facts, report.facts[ranks.rank].interfaces, {0: ranks}
    if len(interfaces) > 1:
        for index, name in enumerate(interfaces):
            watchdog.start_step(f"creating a group over {name} only")
            groups[index] = replace(ranks, group=new_gloo_group(options.timeout, name), device=torch.device("cpu"))
    report.links.extend(measure_links(facts, groups, options.link_bytes, watchdog))
    for _ in range(NUM_RETRIES):
        suspects = [link for link, _ in find_slow_links(report.links, facts)]
        repeated = {link.key: link for link in measure_links(facts, groups, options.link_bytes, watchdog, suspects)}
        report.links = [max(link, repeated.get(link.key, link), key=lambda one: one.rate) for link in report.links]
    found = find_slow_links(report.links, facts)
    report.slow += [slow for _, slow in found]
    for name in ranks_with_slow_links(report.links, [link for link, _ in found], facts):
        report.slow.append(SlowComponent(name, 1.0, f"{name}: all its links are slow, links of other ranks are not"))


def below_thresholds(report: Report, thresholds: Mapping[str, Mapping[int, float]]) -> list[Check]:
    """Return a finding for each result below its threshold, or one fine check.

    A threshold holds from its size in bytes up to the next larger size.
    """
    if not thresholds:
        return []
    lines = []
    for one in report.measured:
        given = [pair for pair in thresholds.get(one.collective, {}).items() if pair[0] <= one.num_bytes]
        _, minimum = max(given, default=(0, 0.0))
        if one.bus < minimum:
            name = f"{one.collective} of {format_bytes(one.num_bytes)}"
            lines.append(f"{name}: {one.bus:.3g} GB/s on the bus, below {minimum:g}")
    minimum = thresholds.get("links", {}).get(0, 0.0)
    slow = [link for link in report.links if link.rate < minimum]
    lines += [f"{link_name(link, report.facts)}: {link.rate:.3g} GB/s, below {minimum:g}" for link in slow]
    return [Check("threshold", FINDING, line) for line in lines] or [Check("threshold", FINE, "nothing is below it")]
