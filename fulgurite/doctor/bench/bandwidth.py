"""Compute algorithm and bus bandwidth as nccl-tests defines them.

The algorithm bandwidth is the message size S over the time t. The bus bandwidth is the rate of one hardware link. It
does not depend on the number n of ranks, so it is comparable with the rated speed of the link.

Reference: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_high, median_low

# bus bandwidth over algorithm bandwidth, for n ranks
BUS_FACTOR: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "broadcast": lambda _: 1.0,
    "reduce": lambda _: 1.0,
    "send_recv": lambda _: 1.0,
}


def algorithm_bandwidth(num_bytes: int, seconds: float) -> float:
    """Return GB/s, of 10^9 bytes.

    Args:
        num_bytes: S: for broadcast, reduce and all_reduce one buffer, else the sum over all ranks.
        seconds: Of one call, on the slowest rank.
    """
    return num_bytes / seconds / 1e9


def bus_bandwidth(collective: str, num_bytes: int, seconds: float, num_ranks: int) -> float:
    """Return GB/s over one link, of 10^9 bytes; see `algorithm_bandwidth`."""
    return algorithm_bandwidth(num_bytes, seconds) * BUS_FACTOR[collective](num_ranks)


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the smallest value not below a fraction of all values (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(fraction * 1000) * len(ordered) // 1000) - 1)]


def slow_indices(rates: Sequence[float]) -> list[int]:
    """Return the indices of slow rates, slowest first.

    A rate is slow when it is below the median by more than the median absolute deviation and by more than a tenth of
    the median. The median of an even number is the higher middle value: one of two links can be slow, and two of four.
    """
    if len(rates) < 2:
        return []
    middle = median_high(rates)
    spread = median_low([abs(rate - middle) for rate in rates])
    slow = [index for index, rate in enumerate(rates) if middle - rate > max(spread, 0.10 * middle)]
    return sorted(slow, key=rates.__getitem__)
