"""Measure clock offsets between ranks, as NTP does: half of the round trip."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import RankGroup

NUM_QUERIES = 5


def clock_offsets(ranks: RankGroup) -> list[float]:
    """Return each clock's seconds ahead of rank 0, within half a round trip."""
    offsets = torch.zeros(ranks.size, dtype=torch.float64, device=ranks.device)
    for other in range(1, ranks.size):
        if ranks.rank == 0:
            for _ in range(NUM_QUERIES):
                _answer_query(ranks, other)
        elif ranks.rank == other:
            # the fastest round trip has the smallest error
            _, offsets[other] = min(_query_clock(ranks) for _ in range(NUM_QUERIES))
    dist.all_reduce(offsets, group=ranks.group)
    return offsets.tolist()


def _query_clock(ranks: RankGroup) -> tuple[float, float]:
    """Return the round trip and the offset to rank 0's clock, in seconds."""
    message = ranks.tensor(0, dtype=torch.float64)
    start = time.time()
    dist.send(message, 0, group=ranks.group)
    dist.recv(message, 0, group=ranks.group)
    end = time.time()
    return end - start, (start + end) / 2 - message.item()


def _answer_query(ranks: RankGroup, other: int) -> None:
    dist.recv(ranks.tensor(0, dtype=torch.float64), other, group=ranks.group)
    dist.send(ranks.tensor(time.time(), dtype=torch.float64), other, group=ranks.group)
