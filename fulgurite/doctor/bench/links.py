"""Measure links between ranks and each rank's processor, and find the slow ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median, median_high

import torch
import torch.distributed as dist

from fulgurite.doctor.bench.bandwidth import slow_indices
from fulgurite.doctor.cluster.rank_group import RankGroup
from fulgurite.doctor.cluster.rank_info import RankInfo
from fulgurite.doctor.cluster.watchdog import Watchdog

MAX_ALL_PAIRS = 16  # with more ranks, only the first rank of each machine is measured
NUM_PINGS, NUM_ROUNDS = 20, 5
FINDING_RATIO = 0.5  # of the median: a lower rate is a finding, else a note


@dataclass(frozen=True)
class Link:
    """One direction between two ranks over one interface.

    Attributes:
        interface: Index of the interface.
        latency: Seconds: half of the round trip of 8 bytes.
        rate: GB/s, of 10^9 bytes, of large messages with a small answer.
    """

    source: int
    target: int
    interface: int
    latency: float
    rate: float

    @property
    def key(self) -> tuple[int, int, int]:
        """Source, target and interface."""
        return self.source, self.target, self.interface


@dataclass(frozen=True)
class SlowComponent:
    """A slow link or a slow rank.

    Attributes:
        ratio: To the median of its kind.
        uses_shared_cpu: Whether the rate depends on the processor time that other processes leave; never a finding.
    """

    name: str
    ratio: float
    message: str
    uses_shared_cpu: bool = False

    @property
    def is_finding(self) -> bool:
        """Whether the doctor exits with 1."""
        return self.ratio < FINDING_RATIO and not self.uses_shared_cpu


def link_name(link: Link, facts: Sequence[RankInfo]) -> str:
    """Return `rank 0 (a) -> rank 1 (b) over eth0`."""
    source = facts[link.source]
    return f"{source.name} -> {facts[link.target].name} over {source.interfaces[link.interface]}"


def rank_pairs(facts: Sequence[RankInfo]) -> list[tuple[int, int]]:
    """Return the pairs to measure: all, or with many ranks one rank per machine."""
    chosen = [one.rank for one in facts]
    if len(chosen) > MAX_ALL_PAIRS:
        chosen = sorted({one.machine: one.rank for one in reversed(facts)}.values())
    return list(combinations(chosen, 2))


def measure_links(
    facts: Sequence[RankInfo],
    groups: Mapping[int, RankGroup],
    num_bytes: int,
    watchdog: Watchdog,
    subset: Sequence[Link] | None = None,
) -> Iterator[Link]:
    """Yield the measured links, on all ranks; `subset` holds those to measure again.

    `groups` has a group over each interface, by the interface's index.
    """
    wanted = None if subset is None else {(link.interface, *sorted((link.source, link.target))) for link in subset}
    for index, ranks in groups.items():
        for one, other in rank_pairs(facts):
            if wanted is None or (index, one, other) in wanted:
                name = f"{facts[one].name} and {facts[other].name} over {facts[one].interfaces[index]}"
                watchdog.start_step(f"link between {name}{'' if wanted is None else ' again'}")
                yield from _measure_pair(ranks, index, one, other, num_bytes)


def _measure_pair(ranks: RankGroup, index: int, one: int, other: int, num_bytes: int) -> list[Link]:
    """Return both directions of a link, on all ranks."""
    dist.barrier(group=ranks.group)  # only one pair uses the network at a time
    values = torch.zeros(2, 2, dtype=torch.float64, device=ranks.device)  # latency and rate by sender
    if ranks.rank in {one, other}:
        peer, is_first = (other, True) if ranks.rank == one else (one, False)
        small, large = torch.zeros(2, device=ranks.device), torch.zeros(max(2, num_bytes // 4), device=ranks.device)
        for _ in range(2):  # the first messages allocate buffers
            _round_trip(ranks, small, small, peer, sends=is_first)
        latency = median(_round_trip(ranks, small, small, peer, sends=is_first) for _ in range(NUM_PINGS)) / 2
        for row, sender in enumerate((one, other)):
            sends = sender == ranks.rank
            times = [_round_trip(ranks, large, small, peer, sends=sends) for _ in range(NUM_ROUNDS + 1)][1:]
            if sends:  # the fastest: another process disturbs some rounds, a bad link slows all
                values[row, 0], values[row, 1] = latency, large.numel() * 4 / min(times) / 1e9
    dist.all_reduce(values, group=ranks.group)
    return [
        Link(source, target, index, latency, rate)
        for (source, target), (latency, rate) in zip([(one, other), (other, one)], values.tolist(), strict=True)
    ]


def _round_trip(ranks: RankGroup, message: torch.Tensor, answer: torch.Tensor, peer: int, *, sends: bool) -> float:
    start = time.perf_counter()
    if sends:
        dist.send(message, peer, group=ranks.group)
        dist.recv(answer, peer, group=ranks.group)
    else:
        dist.recv(message, peer, group=ranks.group)
        dist.send(answer, peer, group=ranks.group)
    return time.perf_counter() - start


def find_slow_links(links: Sequence[Link], facts: Sequence[RankInfo]) -> list[tuple[Link, SlowComponent]]:
    """Return the slow links within machines, then those between machines."""
    found = []
    for is_between in (False, True):
        kind = [one for one in links if (facts[one.source].machine != facts[one.target].machine) == is_between]
        rates = [one.rate for one in kind]
        found += [(kind[index], _describe_slow_link(kind[index], rates, facts)) for index in slow_indices(rates)]
    return found


def _describe_slow_link(link: Link, rates: Sequence[float], facts: Sequence[RankInfo]) -> SlowComponent:
    middle = median_high(rates)
    source, target, name = facts[link.source], facts[link.target], link_name(link, facts)
    message = f"{name}: {link.rate:.3g} GB/s, {100 * link.rate / middle:.2g} % of the median {middle:.3g}"
    # within a machine without GPUs, the processor copies the messages
    uses_shared_cpu = source.machine == target.machine and source.device.startswith("cpu")
    return SlowComponent(name, link.rate / middle, message, uses_shared_cpu)


def find_slow_ranks(rates: Sequence[float], facts: Sequence[RankInfo]) -> list[SlowComponent]:
    """Return the ranks with a slow processor, by the GFLOP/s of each rank."""
    middle = median_high(rates)
    found = []
    for index in slow_indices(rates):
        name, ratio = facts[index].name, rates[index] / middle
        message = f"{name}: multiplies at {rates[index]:.3g} GFLOP/s, {100 * ratio:.2g} % of the median {middle:.3g}"
        found.append(SlowComponent(name, ratio, message))
    return found


def ranks_with_slow_links(links: Sequence[Link], slow: Sequence[Link], facts: Sequence[RankInfo]) -> list[str]:
    """Return the ranks at fault: all their links are slow, other links are not."""
    names = []
    for one in facts:
        own_slow = {link in slow for link in links if one.rank in {link.source, link.target}}
        others_slow = {link in slow for link in links if one.rank not in {link.source, link.target}}
        if own_slow == {True} and False in others_slow:
            names.append(one.name)
    return names


def gemm_rate(ranks: RankGroup, size: int = 512, rounds: int = 7) -> list[float]:
    """Return the GFLOP/s of each rank's matrix product, measured one rank at a time."""
    factor = torch.ones(size, size, device=ranks.device)
    rates = torch.zeros(ranks.size, dtype=torch.float64, device=ranks.device)
    for rank in range(ranks.size):
        dist.barrier(group=ranks.group)
        if rank == ranks.rank:
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                float((factor @ factor)[0, 0])  # reading a value waits for the GPU
                times.append(time.perf_counter() - start)
            rates[rank] = 2 * size**3 / min(times) / 1e9  # the fastest round is the least disturbed
    dist.all_reduce(rates, group=ranks.group)
    return rates.tolist()
