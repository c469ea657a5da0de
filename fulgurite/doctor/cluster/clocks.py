"""How far the machines' clocks are apart, as NTP asks: half of the way there and back."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import Ranks

ROUNDS = 5


def clock_skew(ranks: Ranks) -> list[float]:
    """Return how many seconds each rank's clock is ahead of rank 0's; the same list on all ranks.

    Args:
        ranks: Any number; the error is below half of a message's way there and back.
    """
    ahead = torch.zeros(ranks.size, dtype=torch.float64, device=ranks.device)
    for other in range(1, ranks.size):
        if ranks.rank == 0:
            for _ in range(ROUNDS):
                _answer(ranks, other)
        elif ranks.rank == other:
            # the quickest answer was held up least
            _, ahead[other] = min(_ask(ranks) for _ in range(ROUNDS))
    dist.all_reduce(ahead, group=ranks.group)
    return [float(seconds) for seconds in ahead]


def _ask(ranks: Ranks) -> tuple[float, float]:
    """Return how long the answer took, and how far this clock is ahead of rank 0's; both in seconds."""
    answer = ranks.tensor(0, dtype=torch.float64)
    sent = time.time()
    dist.send(answer, 0, group=ranks.group)
    dist.recv(answer, 0, group=ranks.group)
    back = time.time()
    return back - sent, (sent + back) / 2 - answer.item()


def _answer(ranks: Ranks, other: int) -> None:
    question = ranks.tensor(0, dtype=torch.float64)
    dist.recv(question, other, group=ranks.group)
    dist.send(ranks.tensor(time.time(), dtype=torch.float64), other, group=ranks.group)
