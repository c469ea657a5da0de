"""Which link, and which rank, is slower than the others of its kind? One pair of ranks at a time, each way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.distributed as dist

from fulgurite.doctor.bench.bandwidth import slow_ones
from fulgurite.doctor.cluster.facts import RankInfo
from fulgurite.doctor.cluster.rank_group import Ranks

MANY = 16  # ranks; above it, one rank a machine stands for all of it
PINGS, ROUNDS = 20, 5
SERIOUS = 0.5  # of the median: what is slower is a finding, what is only slower than it should be is a note


@dataclass(frozen=True)
class Link:
    """From one rank to another over one interface.

    Attributes:
        source: Rank that sends.
        target: Rank that receives.
        interface: Its place among the interfaces in use.
        latency: Seconds, half of the way there and back of 8 bytes.
        rate: GB/s, of 10^9 bytes, of large messages that are each answered.
    """

    source: int
    target: int
    interface: int
    latency: float
    rate: float


@dataclass(frozen=True)
class Slow:
    """A link or a rank that falls short.

    Attributes:
        what: Which one, as a person is told.
        share: Of the median of its kind.
        told: One line.
        borrowed: What was measured is a processor's share, which others may have taken: never a finding.
    """

    what: str
    share: float
    told: str
    borrowed: bool = False

    @property
    def serious(self) -> bool:
        """Whether it is so slow that the doctor ends with a finding."""
        return self.share < SERIOUS and not self.borrowed


def pairs(facts: Sequence[RankInfo]) -> list[tuple[int, int]]:
    """Return which ranks are measured with which: all, or of many ranks the first of each machine."""
    chosen = [one.rank for one in facts]
    if len(chosen) > MANY:
        first: dict[str, int] = {}
        for one in facts:
            first.setdefault(one.machine, one.rank)
        chosen = list(first.values())
    return [(one, other) for place, one in enumerate(chosen) for other in chosen[place + 1 :]]


def measure_pair(ranks: Ranks, one: int, other: int, num_bytes: int) -> tuple[float, float, float] | None:
    """Return latency in seconds and both ways' GB/s between two ranks; None on ranks that are neither.

    Args:
        ranks: With the group of the interface that is measured.
        one: A rank.
        other: Another one.
        num_bytes: Of the large messages.
    """
    if ranks.rank not in {one, other}:
        return None
    peer, first = (other, True) if ranks.rank == one else (one, False)
    small, large = torch.zeros(2, device=ranks.device), torch.zeros(max(2, num_bytes // 4), device=ranks.device)
    for _ in range(2):  # the first messages open buffers
        _there_and_back(ranks, small, small, peer, sends=first)
    latency = median(_there_and_back(ranks, small, small, peer, sends=first) for _ in range(PINGS)) / 2
    rates = []
    for sender in (True, False):  # there, then back; each message is answered by a small one
        sends = sender == first
        times = [_there_and_back(ranks, large, small, peer, sends=sends) for _ in range(ROUNDS + 1)][1:]
        # the best of them: a neighbour disturbs some, a bad link slows all
        rates.append(large.numel() * 4 / min(times) / 1e9)
    return latency, rates[0], rates[1]


def _there_and_back(ranks: Ranks, there: torch.Tensor, back: torch.Tensor, peer: int, *, sends: bool) -> float:
    start = time.perf_counter()
    if sends:
        dist.send(there, peer, group=ranks.group)
        dist.recv(back, peer, group=ranks.group)
    else:
        dist.recv(there, peer, group=ranks.group)
        dist.send(back, peer, group=ranks.group)
    return time.perf_counter() - start


def links_to_measure(
    facts: Sequence[RankInfo], groups: Mapping[int, Ranks], num_bytes: int, only: Sequence[Link] | None = None
) -> Iterator[tuple[str, Callable[[], list[Link]]]]:
    """Yield what is measured next, and how; each call returns the same links on all ranks.

    Args:
        facts: Of all ranks.
        groups: Ranks with a group over each interface alone, by its place.
        num_bytes: Of the large messages.
        only: Links to be measured; all when not given.
    """
    wanted = None if only is None else {(link.interface, *sorted((link.source, link.target))) for link in only}
    for place, ranks in groups.items():
        for one, other in pairs(facts):
            if wanted is not None and (place, one, other) not in wanted:
                continue
            name = f"link between {facts[one].name} and {facts[other].name} over {facts[one].interfaces[place]}"
            yield name, partial(_both_ways, ranks, place, one, other, num_bytes)


def _both_ways(ranks: Ranks, place: int, one: int, other: int, num_bytes: int) -> list[Link]:
    dist.barrier(group=ranks.group)  # one pair at a time has the network for itself
    measured = measure_pair(ranks, one, other, num_bytes)
    # what rank `one` clocked is its sending there, what `other` clocked its sending back
    mine = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    if measured is not None:
        latency, there, back = measured
        if ranks.rank == one:
            mine[0], mine[1] = latency, there
        else:
            mine[2], mine[3] = latency, back
    dist.all_reduce(mine, group=ranks.group)
    latency, there, also, back = (float(value) for value in mine)
    return [Link(one, other, place, latency, there), Link(other, one, place, also, back)]


def slow_links(links: Sequence[Link], facts: Sequence[RankInfo]) -> list[tuple[Link, Slow]]:
    """Return the links that fall short of those of their kind: within a machine, or between machines."""
    found = []
    for between in (False, True):
        kind = [one for one in links if (facts[one.source].machine != facts[one.target].machine) == between]
        rates = [one.rate for one in kind]
        found += [(kind[place], _slow_link(kind[place], rates, facts)) for place in slow_ones(rates)]
    return found


def _slow_link(one: Link, rates: Sequence[float], facts: Sequence[RankInfo]) -> Slow:
    middle = sorted(rates)[len(rates) // 2]
    source, target = facts[one.source], facts[one.target]
    what = f"{source.name} -> {target.name} over {source.interfaces[one.interface]}"
    told = f"{what}: {one.rate:.3g} GB/s, {100 * one.rate / middle:.2g} % of the median {middle:.3g}"
    # within a machine without GPUs a message is a copy by the processor
    return Slow(what, one.rate / middle, told, source.machine == target.machine and source.device.startswith("cpu"))


def slow_ranks(rates: Sequence[float], facts: Sequence[RankInfo]) -> list[Slow]:
    """Return the ranks whose processor falls short.

    Args:
        rates: GFLOP/s of each rank.
        facts: Of all ranks.
    """
    middle = sorted(rates)[len(rates) // 2]
    found = []
    for place in slow_ones(rates):
        name, share = facts[place].name, rates[place] / middle
        told = f"{name}: multiplies at {rates[place]:.3g} GFLOP/s, {100 * share:.2g} % of the median {middle:.3g}"
        found.append(Slow(name, share, told))
    return found


def ranks_of_slow_links(links: Sequence[Link], slow: Sequence[Link], facts: Sequence[RankInfo]) -> list[str]:
    """Return the ranks of which every link is slow while others are not: the rank is at fault, not its links."""
    named = []
    for one in facts:
        of_rank = [link for link in links if one.rank in {link.source, link.target}]
        others = [link for link in links if link not in of_rank]
        if of_rank and others and all(link in slow for link in of_rank) and not all(link in slow for link in others):
            named.append(one.name)
    return named


def gemm_rate(ranks: Ranks, size: int = 512, rounds: int = 7) -> list[float]:
    """Return the GFLOP/s at which each rank multiplies two matrices, one rank after the other."""
    factor = torch.ones(size, size, device=ranks.device)
    rates = torch.zeros(ranks.size, dtype=torch.float64, device=ranks.device)
    for rank in range(ranks.size):
        dist.barrier(group=ranks.group)
        if rank == ranks.rank:
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                float((factor @ factor)[0, 0])  # a GPU has done it only when its result is read
                times.append(time.perf_counter() - start)
            rates[rank] = 2 * size**3 / min(times) / 1e9  # what a neighbour on the machine did not disturb
    dist.all_reduce(rates, group=ranks.group)
    return [float(rate) for rate in rates]
