"""What a time says of a network: algorithm and bus bandwidth as nccl-tests defines them.

The algorithm bandwidth is the size S of the whole message over the time t. The bus bandwidth is what one link of the
hardware must have carried for that, whatever the number n of ranks, so it can be compared with what the link should
carry.

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
        num_bytes: S: of the buffer of broadcast, reduce and all_reduce; of all ranks' parts together of the others.
        seconds: Of one call, on the slowest rank.
    """
    return num_bytes / seconds / 1e9


def bus_bandwidth(collective: str, num_bytes: int, seconds: float, num_ranks: int) -> float:
    """Return GB/s over one link, of 10^9 bytes; see `algorithm_bandwidth`."""
    return algorithm_bandwidth(num_bytes, seconds) * BUS_FACTOR[collective](num_ranks)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1)]


def slow_ones(rates: Sequence[float], tolerance: float = 0.10) -> list[int]:
    """Return which rates fall short of the others: by more than max(median absolute deviation, a share of the median).

    Of an even number the better of the two in the middle is the median: of two links one is slow, of four two may be.

    Args:
        rates: Each more is better: GB/s of links, 1 / seconds of ranks.
        tolerance: Share of the median.

    Returns:
        Their places, slowest first.
    """
    if len(rates) < 2:
        return []
    middle = median_high(rates)
    spread = median_low([abs(rate - middle) for rate in rates])
    short = [place for place, rate in enumerate(rates) if middle - rate > max(spread, tolerance * middle)]
    return sorted(short, key=rates.__getitem__)
