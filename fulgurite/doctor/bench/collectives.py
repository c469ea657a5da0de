"""Time each collective by size: median and 95th percentile of the slowest rank."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed as dist

from fulgurite.doctor.bench.bandwidth import algorithm_bandwidth, bus_bandwidth, percentile
from fulgurite.doctor.cluster.options import Options
from fulgurite.doctor.cluster.rank_group import RankGroup
from fulgurite.doctor.conformance.collectives import gather_single, scatter_single

SMALLEST_BYTES = 8
ITEM_BYTES = 4  # of a float32
MIN_CALLS = 3


@dataclass(frozen=True)
class Measurement:
    """One collective at one size.

    Attributes:
        num_bytes: Message size S as nccl-tests counts it.
        calls: Number of measured calls.
        median: Seconds, of the slowest rank.
        p95: Seconds, of the slowest rank.
        algorithm: Algorithm bandwidth of the median in GB/s.
        bus: Bus bandwidth of the median in GB/s.
        wrong: Number of wrong values on all ranks after one more call.
    """

    collective: str
    num_bytes: int
    calls: int
    median: float
    p95: float
    algorithm: float
    bus: float
    wrong: int


@dataclass(frozen=True)
class Case:
    """A collective with its buffers.

    Attributes:
        input: Its input, filled with ones before the checked call.
        output: Its output on this rank, or None.
        expected: Each value of the output after the checked call.
        num_bytes: Message size S.
    """

    call: Callable[[], object]
    input: torch.Tensor
    output: torch.Tensor | None
    expected: float
    num_bytes: int


def message_sizes(largest: int, factor: int) -> list[int]:
    """Return message sizes in bytes: 8, each multiplied by `factor`, and the largest."""
    sizes, size = [], SMALLEST_BYTES
    while size < largest:
        sizes.append(size)
        size *= factor
    return [*sizes, largest]


def make_case(collective: str, ranks: RankGroup, num_bytes: int) -> Case:
    """Return a collective with its buffers, rounded down to whole shards."""
    if collective in {"all_reduce", "broadcast", "reduce", "send_recv"}:
        buffer = torch.ones(max(1, num_bytes // ITEM_BYTES), device=ranks.device)
        return _make_replicated_case(collective, ranks, buffer)
    shard = torch.ones(max(1, num_bytes // ITEM_BYTES // ranks.size), device=ranks.device)
    return _make_sharded_case(collective, ranks, shard)


def _make_replicated_case(collective: str, ranks: RankGroup, buffer: torch.Tensor) -> Case:
    """Return a case whose size S is that of one buffer."""
    group, size = ranks.group, buffer.numel() * ITEM_BYTES
    received = torch.zeros_like(buffer)
    # after a reduce, the buffers of the other ranks hold partial sums
    of_root = buffer if ranks.rank == 0 else None
    return {
        "all_reduce": Case(lambda: dist.all_reduce(buffer, group=group), buffer, buffer, ranks.size, size),
        "broadcast": Case(lambda: dist.broadcast(buffer, 0, group=group), buffer, buffer, 1, size),
        "reduce": Case(lambda: dist.reduce(buffer, 0, group=group), buffer, of_root, ranks.size, size),
        "send_recv": Case(lambda: _ring_exchange(ranks, buffer, received), buffer, received, 1, size),
    }[collective]


def _make_sharded_case(collective: str, ranks: RankGroup, shard: torch.Tensor) -> Case:
    """Return a case whose size S is the sum of all ranks' shards."""
    group, joined, given = ranks.group, shard.repeat(ranks.size), shard.repeat(ranks.size)
    size = joined.numel() * ITEM_BYTES
    shards = list(torch.split(joined, shard.numel())) if ranks.rank == 0 else None
    of_root = joined if ranks.rank == 0 else None
    return {
        "all_gather": Case(lambda: gather_single(joined, shard, group=group), shard, joined, 1, size),
        "reduce_scatter": Case(lambda: scatter_single(shard, given, group=group), given, shard, ranks.size, size),
        "all_to_all": Case(lambda: dist.all_to_all_single(joined, given, group=group), given, joined, 1, size),
        "gather": Case(lambda: dist.gather(shard, shards, 0, group=group), shard, of_root, 1, size),
        "scatter": Case(lambda: dist.scatter(shard, shards, 0, group=group), joined, shard, 1, size),
    }[collective]


def _ring_exchange(ranks: RankGroup, sent: torch.Tensor, received: torch.Tensor) -> None:
    """Send to the next rank and receive from the previous one at the same time."""
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, sent, ranks.next, ranks.group),
            dist.P2POp(dist.irecv, received, ranks.previous, ranks.group),
        ]
    )
    for work in works:
        work.wait()


def time_calls(case: Case, ranks: RankGroup, count: int) -> list[float]:
    """Return the seconds of each call on the slowest rank, including GPU work."""
    is_cuda, times = ranks.device.type == "cuda", []
    for _ in range(count):
        dist.barrier(group=ranks.group)
        if is_cuda:
            torch.cuda.synchronize(ranks.device)
        start = time.perf_counter()
        case.call()
        if is_cuda:
            torch.cuda.synchronize(ranks.device)
        times.append(time.perf_counter() - start)
    slowest = ranks.tensor(*times, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=ranks.group)
    return slowest.tolist()


def measure_collective(collective: str, ranks: RankGroup, num_bytes: int, options: Options) -> Measurement:
    """Return the measurement of a collective at one size, on all of two or more ranks."""
    case = make_case(collective, ranks, num_bytes)
    [estimate] = time_calls(case, ranks, 1)
    if (count := min(options.warmup - 1, int(options.seconds / estimate))) > 0:
        estimate = median(time_calls(case, ranks, count))
    in_time = min(options.calls, int(options.seconds / estimate))
    times = time_calls(case, ranks, max(min(MIN_CALLS, options.calls), in_time))
    middle = median(times)
    return Measurement(
        collective,
        case.num_bytes,
        len(times),
        middle,
        percentile(times, 0.95),
        algorithm_bandwidth(case.num_bytes, middle),
        bus_bandwidth(collective, case.num_bytes, middle, ranks.size),
        _count_wrong(case, ranks),
    )


def _count_wrong(case: Case, ranks: RankGroup) -> int:
    """Return the number of wrong values on all ranks after one call."""
    if case.output is not None and case.output is not case.input:
        case.output.zero_()
    case.input.fill_(1)
    dist.barrier(group=ranks.group)
    case.call()
    wrong = 0 if case.output is None else int((case.output != case.expected).sum())
    total = ranks.tensor(wrong, dtype=torch.float64)
    dist.all_reduce(total, group=ranks.group)
    return int(total)
