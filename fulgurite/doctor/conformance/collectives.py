"""Collectives by example, with exact expected values on every rank.

All ranks of a group must make the same calls in the same order, with tensors of the same shape and dtype. Otherwise
they block until the group's timeout.

Reference: https://pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from functools import partial, reduce

import torch
import torch.distributed as dist

from fulgurite.compat.lightning import premultiplied_sum
from fulgurite.doctor.cluster.rank_group import Comparison, Example, RankGroup

# AVG needs NCCL, or gloo of a recent torch. BAND, BOR and BXOR need gloo and integers. PREMUL_SUM needs NCCL.
REDUCTIONS: dict[str, Callable[[list[int]], float]] = {
    "SUM": sum,
    "AVG": lambda numbers: sum(numbers) / len(numbers),
    "PRODUCT": math.prod,
    "MIN": min,
    "MAX": max,
    "BAND": partial(reduce, operator.and_),
    "BOR": partial(reduce, operator.or_),
    "BXOR": partial(reduce, operator.xor),
}
BITWISE = {"BAND", "BOR", "BXOR"}
PREMUL_FACTOR = 3
# torch 2.13 renamed both
gather_single = getattr(dist, "allgather_single", None) or dist.all_gather_into_tensor
scatter_single = getattr(dist, "reducescatter_single", None) or dist.reduce_scatter_tensor


def numbers(size: int) -> list[int]:
    """Return each rank's input: reductions of 3 and 5 all differ, products are exact."""
    return [3, 5, *(1 + rank % 2 for rank in range(size))][:size]


def all_reduce(name: str, ranks: RankGroup) -> Iterator[Comparison]:
    """Reduce the tensors of all ranks in place on all ranks."""
    dtype = torch.int64 if name in BITWISE else torch.float64
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank], 1, dtype=dtype)
    dist.all_reduce(mine, getattr(dist.ReduceOp, name), group=ranks.group)
    wanted = [REDUCTIONS[name](numbers(ranks.size)), REDUCTIONS[name]([1] * ranks.size)]
    yield mine, ranks.tensor(*wanted, dtype=dtype)


def all_reduce_premultiplied(ranks: RankGroup) -> Iterator[Comparison]:
    """Multiply the tensor of each rank by a factor and sum, in one kernel."""
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank])
    dist.all_reduce(mine, premultiplied_sum(float(PREMUL_FACTOR)), group=ranks.group)
    yield mine, ranks.tensor(PREMUL_FACTOR * sum(numbers(ranks.size)))


def all_reduce_async(ranks: RankGroup) -> Iterator[Comparison]:
    """Reduce asynchronously: the tensor is not valid before `wait` returns."""
    mine = ranks.tensor(*[ranks.rank + 1] * 1000)
    work = dist.all_reduce(mine, group=ranks.group, async_op=True)
    meanwhile = sum(range(1000))  # work that does not need the result
    work.wait()
    yield meanwhile, 499500
    yield mine, ranks.tensor(*[ranks.size * (ranks.size + 1) / 2] * 1000)


def same_bits(ranks: RankGroup) -> Iterator[Comparison]:
    """Sum floats: the order changes the result, but all ranks have the same bits."""
    noise = torch.randn(4099, generator=torch.Generator().manual_seed(ranks.rank)).to(ranks.device)
    dist.all_reduce(noise, group=ranks.group)
    of_all = [torch.empty_like(noise) for _ in range(ranks.size)]
    dist.all_gather(of_all, noise, group=ranks.group)
    for other in of_all:
        yield other.view(torch.int32), noise.view(torch.int32)


def broadcast(ranks: RankGroup) -> Iterator[Comparison]:
    """Copy the tensor of one rank to all ranks; each rank is the source once."""
    for source in range(ranks.size):
        mine = ranks.tensor(*[100 * ranks.rank + number for number in range(3)])
        dist.broadcast(mine, src=source, group=ranks.group)
        yield mine, ranks.tensor(*[100 * source + number for number in range(3)])


def reduce_to_one(ranks: RankGroup) -> Iterator[Comparison]:
    """Reduce to one rank; the tensors of the other ranks are undefined afterwards."""
    target = ranks.size - 1
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank])
    dist.reduce(mine, dst=target, group=ranks.group)
    if ranks.rank == target:
        yield mine, ranks.tensor(sum(numbers(ranks.size)))


def all_gather(ranks: RankGroup) -> Iterator[Comparison]:
    """Gather all tensors on all ranks, as a list and as one tensor, which is faster."""
    mine = ranks.tensor(ranks.rank, -ranks.rank)
    listed = [torch.empty_like(mine) for _ in range(ranks.size)]
    dist.all_gather(listed, mine, group=ranks.group)
    joined = torch.empty(2 * ranks.size, device=ranks.device)
    gather_single(joined, mine, group=ranks.group)
    wanted = ranks.tensor(*[number for rank in range(ranks.size) for number in (rank, -rank)])
    yield torch.cat(listed), wanted
    yield joined, wanted


def gather(ranks: RankGroup) -> Iterator[Comparison]:
    """Gather all tensors on rank 0; only rank 0 passes a list for them."""
    mine = ranks.tensor(ranks.rank + 0.5)
    listed = [torch.empty_like(mine) for _ in range(ranks.size)] if ranks.rank == 0 else None
    dist.gather(mine, listed, dst=0, group=ranks.group)
    if listed is not None:
        yield torch.cat(listed), ranks.tensor(*[rank + 0.5 for rank in range(ranks.size)])


def scatter(ranks: RankGroup) -> Iterator[Comparison]:
    """Send one tensor from the source to each rank; only the source passes the list."""
    source = ranks.size - 1
    listed = [ranks.tensor(rank * rank) for rank in range(ranks.size)] if ranks.rank == source else None
    mine = torch.empty(1, device=ranks.device)
    dist.scatter(mine, listed, src=source, group=ranks.group)
    yield mine, ranks.tensor(ranks.rank**2)


def reduce_scatter(ranks: RankGroup) -> Iterator[Comparison]:
    """Sum the shards of all ranks; each rank gets one shard.

    With an all_gather it equals an all_reduce. FSDP uses this pair.
    """
    parts = [ranks.tensor(10 * ranks.rank + part) for part in range(ranks.size)]
    listed, joined = (torch.empty(1, device=ranks.device) for _ in range(2))
    dist.reduce_scatter(listed, parts, group=ranks.group)
    scatter_single(joined, torch.cat(parts), group=ranks.group)
    wanted = ranks.tensor(sum(10 * rank + ranks.rank for rank in range(ranks.size)))
    yield listed, wanted
    yield joined, wanted


def all_to_all(ranks: RankGroup) -> Iterator[Comparison]:
    """Send a tensor from each rank to each rank, as mixtures of experts do."""
    given = [ranks.tensor(10 * ranks.rank + other) for other in range(ranks.size)]
    taken = [torch.empty(1, device=ranks.device) for _ in range(ranks.size)]
    dist.all_to_all(taken, given, group=ranks.group)
    wanted = ranks.tensor(*[10 * other + ranks.rank for other in range(ranks.size)])
    yield torch.cat(taken), wanted
    joined = torch.empty(ranks.size, device=ranks.device)
    dist.all_to_all_single(joined, torch.cat(given), group=ranks.group)
    yield joined, wanted


def all_to_all_uneven(ranks: RankGroup) -> Iterator[Comparison]:
    """Exchange shards of unequal length: rank r sends r + 1 numbers to each rank."""
    sizes = [rank + 1 for rank in range(ranks.size)]
    mine = ranks.tensor(*[ranks.rank] * (sizes[ranks.rank] * ranks.size))
    taken = torch.empty(sum(sizes), device=ranks.device)
    dist.all_to_all_single(taken, mine, sizes, [sizes[ranks.rank]] * ranks.size, group=ranks.group)
    yield taken, ranks.tensor(*[rank for rank in range(ranks.size) for _ in range(sizes[rank])])


COLLECTIVES: dict[str, Example] = {
    **{f"all_reduce {name}": partial(all_reduce, name) for name in REDUCTIONS},
    "all_reduce PREMUL_SUM": all_reduce_premultiplied,
    "all_reduce async": all_reduce_async,
    "all_reduce same bits on all ranks": same_bits,
    "broadcast": broadcast,
    "reduce": reduce_to_one,
    "all_gather": all_gather,
    "gather": gather,
    "scatter": scatter,
    "reduce_scatter": reduce_scatter,
    "all_to_all": all_to_all,
    "all_to_all uneven": all_to_all_uneven,
}
