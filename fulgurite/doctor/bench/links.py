"""Measure links between two ranks and the processor of each rank, and find the slow ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import median

import torch
import torch.distributed as dist

from fulgurite.doctor.bench.bandwidth import slow_indices
from fulgurite.doctor.cluster.rank_group import RankGroup
from fulgurite.doctor.cluster.rank_info import RankInfo

MAX_ALL_PAIRS = 16  # with more ranks, only the first rank of each machine is measured
NUM_PINGS, NUM_ROUNDS = 20, 5
FINDING_RATIO = 0.5  # of the median: a lower rate is a finding, else a note


@dataclass(frozen=True)
class Link:
    """One direction between two ranks over one interface.

    Attributes:
        source: Rank that sends.
        target: Rank that receives.
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
        name: Of the link or the rank.
        ratio: To the median of its kind.
        message: One line.
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
    """Return the pairs to measure: all, or with many ranks only the first rank of each machine."""
    chosen = [one.rank for one in facts]
    if len(chosen) > MAX_ALL_PAIRS:
        first: dict[str, int] = {}
        for one in facts:
            first.setdefault(one.machine, one.rank)
        chosen = list(first.values())
    return list(combinations(chosen, 2))


def measure_pair(ranks: RankGroup, one: int, other: int, num_bytes: int) -> tuple[float, float, float] | None:
    """Return latency in seconds and GB/s in both directions, or None on all other ranks.

    Args:
        ranks: With the group over the measured interface.
        one: First rank.
        other: Second rank.
        num_bytes: Size of the large messages.
    """
    if ranks.rank not in {one, other}:
        return None
    peer, is_first = (other, True) if ranks.rank == one else (one, False)
    small, large = torch.zeros(2, device=ranks.device), torch.zeros(max(2, num_bytes // 4), device=ranks.device)
    for _ in range(2):  # the first messages allocate buffers
        _round_trip(ranks, small, small, peer, sends=is_first)
    latency = median(_round_trip(ranks, small, small, peer, sends=is_first) for _ in range(NUM_PINGS)) / 2
    rates = []
    for first_sends in (True, False):
        sends = first_sends == is_first
        times = [_round_trip(ranks, large, small, peer, sends=sends) for _ in range(NUM_ROUNDS + 1)][1:]
        # the fastest: another process disturbs some rounds, a bad link slows all
        rates.append(large.numel() * 4 / min(times) / 1e9)
    return latency, rates[0], rates[1]


def _round_trip(ranks: RankGroup, message: torch.Tensor, answer: torch.Tensor, peer: int, *, sends: bool) -> float:
    start = time.perf_counter()
    if sends:
        dist.send(message, peer, group=ranks.group)
        dist.recv(answer, peer, group=ranks.group)
    else:
        dist.recv(message, peer, group=ranks.group)
        dist.send(answer, peer, group=ranks.group)
    return time.perf_counter() - start


def iter_links(
    facts: Sequence[RankInfo], groups: Mapping[int, RankGroup], num_bytes: int, subset: Sequence[Link] | None = None
) -> Iterator[tuple[str, Callable[[], list[Link]]]]:
    """Yield the name of each measurement and the function that runs it, the same on all ranks.

    Args:
        facts: Of all ranks.
        groups: A group over each interface, by the interface's index.
        num_bytes: Size of the large messages.
        subset: Links to measure; None measures all.
    """
    wanted = None if subset is None else {(link.interface, *sorted((link.source, link.target))) for link in subset}
    for index, ranks in groups.items():
        for one, other in rank_pairs(facts):
            if wanted is not None and (index, one, other) not in wanted:
                continue
            name = f"link between {facts[one].name} and {facts[other].name} over {facts[one].interfaces[index]}"
            yield name, partial(_measure_both_directions, ranks, index, one, other, num_bytes)


def _measure_both_directions(ranks: RankGroup, index: int, one: int, other: int, num_bytes: int) -> list[Link]:
    dist.barrier(group=ranks.group)  # only one pair uses the network at a time
    measured = measure_pair(ranks, one, other, num_bytes)
    # each rank contributes the direction in which it sends
    values = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    if measured is not None:
        latency, forth, back = measured
        if ranks.rank == one:
            values[0], values[1] = latency, forth
        else:
            values[2], values[3] = latency, back
    dist.all_reduce(values, group=ranks.group)
    forth_latency, forth, back_latency, back = (float(value) for value in values)
    return [Link(one, other, index, forth_latency, forth), Link(other, one, index, back_latency, back)]


def find_slow_links(links: Sequence[Link], facts: Sequence[RankInfo]) -> list[tuple[Link, SlowComponent]]:
    """Return the slow links within machines, then those between machines."""
    found = []
    for is_between in (False, True):
        kind = [one for one in links if (facts[one.source].machine != facts[one.target].machine) == is_between]
        rates = [one.rate for one in kind]
        found += [(kind[index], _describe_slow_link(kind[index], rates, facts)) for index in slow_indices(rates)]
    return found


def _describe_slow_link(link: Link, rates: Sequence[float], facts: Sequence[RankInfo]) -> SlowComponent:
    middle = sorted(rates)[len(rates) // 2]
    source, target, name = facts[link.source], facts[link.target], link_name(link, facts)
    message = f"{name}: {link.rate:.3g} GB/s, {100 * link.rate / middle:.2g} % of the median {middle:.3g}"
    # within a machine without GPUs, the processor copies the messages
    uses_shared_cpu = source.machine == target.machine and source.device.startswith("cpu")
    return SlowComponent(name, link.rate / middle, message, uses_shared_cpu)


def find_slow_ranks(rates: Sequence[float], facts: Sequence[RankInfo]) -> list[SlowComponent]:
    """Return the ranks with a slow processor.

    Args:
        rates: GFLOP/s of each rank.
        facts: Of all ranks.
    """
    middle = sorted(rates)[len(rates) // 2]
    found = []
    for index in slow_indices(rates):
        name, ratio = facts[index].name, rates[index] / middle
        message = f"{name}: multiplies at {rates[index]:.3g} GFLOP/s, {100 * ratio:.2g} % of the median {middle:.3g}"
        found.append(SlowComponent(name, ratio, message))
    return found


def ranks_with_slow_links(links: Sequence[Link], slow: Sequence[Link], facts: Sequence[RankInfo]) -> list[str]:
    """Return the ranks whose links are all slow while other links are not: the rank is at fault."""
    names = []
    for one in facts:
        own = [link for link in links if one.rank in {link.source, link.target}]
        others = [link for link in links if link not in own]
        if own and others and all(link in slow for link in own) and not all(link in slow for link in others):
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
    return [float(rate) for rate in rates]
