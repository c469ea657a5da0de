"""How fast is each collective, from a few bytes to many: the time of the slowest rank, median and 95th percentile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.distributed as dist

from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.bandwidth import algorithm_bandwidth, bus_bandwidth, percentile
from fulgurite.doctor.cluster.rank_group import Ranks
from fulgurite.doctor.conformance.collectives import gather_single, scatter_single

SMALLEST = 8  # bytes
ITEM = 4  # bytes of a float32
FEWEST = 3  # calls that are measured, however slow they are


@dataclass(frozen=True)
class Measured:
    """One collective at one size.

    Attributes:
        collective: Its name.
        num_bytes: Size S of the message, as nccl-tests counts it.
        calls: How many were measured.
        median: Seconds, of the slowest rank.
        p95: Seconds, of the slowest rank.
        algorithm: GB/s of the median.
        bus: GB/s of the median.
        wrong: Numbers that were not right after one more call, on all ranks.
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
    """A collective that is ready to be called.

    Attributes:
        call: Calls it once.
        mine: The tensor that goes in; filled with ones before the call that is checked.
        result: The tensor that comes out on this rank; None where none does.
        value: What each of its numbers is then.
        num_bytes: Size S of the message.
    """

    call: Callable[[], object]
    mine: torch.Tensor
    result: torch.Tensor | None
    value: float
    num_bytes: int


def sizes(largest: int, factor: int) -> list[int]:
    """Return message sizes in bytes from 8 up, each `factor` times the one before; the largest is always among them."""
    found, size = [], SMALLEST
    while size < largest:
        found.append(size)
        size *= factor
    return [*found, largest]


def make_case(collective: str, ranks: Ranks, num_bytes: int) -> Case:
    """Return a collective with its buffers.

    Args:
        collective: A name of `BUS_FACTOR`.
        ranks: Two or more.
        num_bytes: Size wanted; rounded down to what divides by the ranks, at least one number each.
    """
    if collective in {"all_reduce", "broadcast", "reduce", "send_recv"}:
        return _whole(collective, ranks, torch.ones(max(1, num_bytes // ITEM), device=ranks.device))
    return _in_parts(collective, ranks, torch.ones(max(1, num_bytes // ITEM // ranks.size), device=ranks.device))


def _whole(collective: str, ranks: Ranks, buffer: torch.Tensor) -> Case:
    """Return a case of a collective whose size is that of each rank's buffer."""
    group, size = ranks.group, buffer.numel() * ITEM
    taken = torch.zeros_like(buffer)
    # after a reduce, the buffers of the other ranks hold partial sums
    of_root = buffer if ranks.rank == 0 else None
    return {
        "all_reduce": Case(lambda: dist.all_reduce(buffer, group=group), buffer, buffer, ranks.size, size),
        "broadcast": Case(lambda: dist.broadcast(buffer, 0, group=group), buffer, buffer, 1, size),
        "reduce": Case(lambda: dist.reduce(buffer, 0, group=group), buffer, of_root, ranks.size, size),
        "send_recv": Case(lambda: _pass_on(ranks, buffer, taken), buffer, taken, 1, size),
    }[collective]


def _in_parts(collective: str, ranks: Ranks, part: torch.Tensor) -> Case:
    """Return a case of a collective whose size is that of all ranks' parts together."""
    group, joined, given = ranks.group, part.repeat(ranks.size), part.repeat(ranks.size)
    size = joined.numel() * ITEM
    parts = list(torch.split(joined, part.numel())) if ranks.rank == 0 else None
    of_root = joined if ranks.rank == 0 else None
    return {
        "all_gather": Case(lambda: gather_single(joined, part, group=group), part, joined, 1, size),
        "reduce_scatter": Case(lambda: scatter_single(part, given, group=group), given, part, ranks.size, size),
        "all_to_all": Case(lambda: dist.all_to_all_single(joined, given, group=group), given, joined, 1, size),
        "gather": Case(lambda: dist.gather(part, parts, 0, group=group), part, of_root, 1, size),
        "scatter": Case(lambda: dist.scatter(part, parts, 0, group=group), joined, part, 1, size),
    }[collective]


def _pass_on(ranks: Ranks, given: torch.Tensor, taken: torch.Tensor) -> None:
    """Send to the next rank and take from the one before, both at a time."""
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, given, ranks.next, ranks.group),
            dist.P2POp(dist.irecv, taken, ranks.previous, ranks.group),
        ]
    )
    for work in works:
        work.wait()


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return how many seconds a call takes, with the work that it leaves to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def slowest(ranks: Ranks, times: Sequence[float]) -> list[float]:
    """Return for each call the time of the rank that took longest; the same on all ranks."""
    of_all = ranks.tensor(*times, dtype=torch.float64)
    dist.all_reduce(of_all, dist.ReduceOp.MAX, group=ranks.group)
    return [float(seconds) for seconds in of_all]


def measure(collective: str, ranks: Ranks, num_bytes: int, warmup: int, calls: int, seconds: float) -> Measured:
    """Return what one collective takes at one size; every rank gets the same answer.

    Args:
        collective: A name of `BUS_FACTOR`.
        ranks: Two or more.
        num_bytes: Size of the message.
        warmup: Calls before those that are measured.
        calls: Calls that are measured.
        seconds: That these may take in all; on slow links there are fewer of them then, but three at least.
    """
    case = make_case(collective, ranks, num_bytes)

    def rounds(number: int) -> list[float]:
        times = []
        for _ in range(number):
            dist.barrier(group=ranks.group)
            times.append(timed(case.call, ranks.device))
        return slowest(ranks, times)

    [first] = rounds(1)
    if (more := min(warmup - 1, int(seconds / first))) > 0:
        first = median(rounds(more))
    taken = rounds(max(min(FEWEST, calls), min(calls, int(seconds / first))))
    middle = median(taken)
    return Measured(
        collective,
        case.num_bytes,
        len(taken),
        middle,
        percentile(taken, 0.95),
        algorithm_bandwidth(case.num_bytes, middle),
        bus_bandwidth(collective, case.num_bytes, middle, ranks.size),
        _wrong(case, ranks),
    )


def _wrong(case: Case, ranks: Ranks) -> int:
    """Return how many numbers are not right after one call, on all ranks together."""
    if case.result is not None and case.result is not case.mine:
        case.result.zero_()
    case.mine.fill_(1)
    dist.barrier(group=ranks.group)
    case.call()
    wrong = 0 if case.result is None else int((case.result != case.value).sum())
    total = ranks.tensor(wrong, dtype=torch.float64)
    dist.all_reduce(total, group=ranks.group)
    return int(total)


def measure_all(
    collectives: Sequence[str], ranks: Ranks, all_sizes: Sequence[int], warmup: int, calls: int, seconds: float
) -> Iterator[tuple[str, Callable[[], Measured]]]:
    """Yield what is measured next, and how: the caller says it before it begins, and may stop."""
    for collective in collectives:
        for num_bytes in all_sizes:
            step = partial(measure, collective, ranks, num_bytes, warmup, calls, seconds)
            yield f"{collective} of {format_bytes(num_bytes)}", step
