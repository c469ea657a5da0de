"""How fast is each collective, from a few bytes to many: the time of the slowest rank, median and 95th percentile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed as dist

from src.distributed.bandwidth import algorithm_bandwidth, bus_bandwidth, percentile
from src.distributed.collectives import gather_single, scatter_single
from src.distributed.ranks import Ranks

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
    whole, group = collective in {"all_reduce", "broadcast", "reduce", "send_recv"}, ranks.group
    count = max(1, num_bytes // ITEM // (1 if whole else ranks.size))
    part = torch.ones(count, device=ranks.device)
    if collective == "all_reduce":
        return Case(lambda: dist.all_reduce(part, group=group), part, part, ranks.size, count * ITEM)
    if collective == "broadcast":
        return Case(lambda: dist.broadcast(part, 0, group=group), part, part, 1, count * ITEM)
    if collective == "reduce":
        # the other ranks' buffers hold partial sums afterwards
        result = part if ranks.rank == 0 else None
        return Case(lambda: dist.reduce(part, 0, group=group), part, result, ranks.size, count * ITEM)
    if collective == "send_recv":
        taken = torch.zeros_like(part)
        return Case(lambda: _pass_on(ranks, part, taken), part, taken, 1, count * ITEM)
    joined = torch.zeros(count * ranks.size, device=ranks.device)
    total = count * ranks.size * ITEM
    if collective == "all_gather":
        return Case(lambda: gather_single(joined, part, group=group), part, joined, 1, total)
    if collective == "reduce_scatter":
        given = torch.ones_like(joined)
        return Case(lambda: scatter_single(part, given, group=group), given, part, ranks.size, total)
    if collective == "all_to_all":
        given = torch.ones_like(joined)
        return Case(lambda: dist.all_to_all_single(joined, given, group=group), given, joined, 1, total)
    parts = list(joined.split(count)) if ranks.rank == 0 else None
    if collective == "gather":
        return Case(lambda: dist.gather(part, parts, 0, group=group), part, joined if parts else None, 1, total)
    assert collective == "scatter", collective
    return Case(lambda: dist.scatter(part, parts, 0, group=group), joined, part, 1, total)


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
            yield (
                f"{collective} of {num_bytes} bytes",
                lambda c=collective, n=num_bytes: measure(c, ranks, n, warmup, calls, seconds),
            )
