"""Collectives by example: what each call takes, and what every rank then holds.

All ranks of a group make the same calls in the same order, with tensors of the same shape and dtype; a rank that does
not is waited for until the group's timeout. Every example yields what came out beside what must have, and is proved
with exact values by `python -m fulgurite doctor`.

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

Number = Callable[[list[int]], float]

# How each operation folds the numbers that the ranks bring. AVG is NCCL's, and gloo's in current releases of torch;
# BAND, BOR and BXOR take integers and are gloo's; PREMUL_SUM, which multiplies by a factor first, is NCCL's alone.
REDUCTIONS: dict[str, Number] = {
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


# torch 2.13 has new names for both
gather_single = getattr(dist, "allgather_single", None) or dist.all_gather_into_tensor
scatter_single = getattr(dist, "reducescatter_single", None) or dist.reduce_scatter_tensor


def numbers(size: int) -> list[int]:
    """Return the number that each rank brings: no two operations agree on 3 and 5, no product is rounded."""
    return [3, 5, *(1 + rank % 2 for rank in range(size))][:size]


def all_reduce(name: str, ranks: RankGroup) -> Iterator[Comparison]:
    """Every rank brings a tensor, every rank gets their reduction, in place."""
    dtype = torch.int64 if name in BITWISE else torch.float64
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank], 1, dtype=dtype)
    dist.all_reduce(mine, getattr(dist.ReduceOp, name), group=ranks.group)
    wanted = [REDUCTIONS[name](numbers(ranks.size)), REDUCTIONS[name]([1] * ranks.size)]
    yield mine, ranks.tensor(*wanted, dtype=dtype)


def all_reduce_premultiplied(ranks: RankGroup) -> Iterator[Comparison]:
    """PREMUL_SUM: each rank's tensor is multiplied by a factor before it is summed, without a kernel of its own."""
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank])
    dist.all_reduce(mine, premultiplied_sum(float(PREMUL_FACTOR)), group=ranks.group)
    yield mine, ranks.tensor(PREMUL_FACTOR * sum(numbers(ranks.size)))


def all_reduce_async(ranks: RankGroup) -> Iterator[Comparison]:
    """`async_op=True` returns at once; the tensor is not to be touched before `wait` has returned."""
    mine = ranks.tensor(*[ranks.rank + 1] * 1000)
    work = dist.all_reduce(mine, group=ranks.group, async_op=True)
    meanwhile = sum(range(1000))  # whatever does not need the result
    work.wait()
    yield meanwhile, 499500
    yield mine, ranks.tensor(*[ranks.size * (ranks.size + 1) / 2] * 1000)


def same_bits(ranks: RankGroup) -> Iterator[Comparison]:
    """A sum of floats depends on the order of summing; all ranks must get the very same bits all the same."""
    noise = torch.randn(4099, generator=torch.Generator().manual_seed(ranks.rank)).to(ranks.device)
    dist.all_reduce(noise, group=ranks.group)
    of_all = [torch.empty_like(noise) for _ in range(ranks.size)]
    dist.all_gather(of_all, noise, group=ranks.group)
    for other in of_all:
        yield other.view(torch.int32), noise.view(torch.int32)


def broadcast(ranks: RankGroup) -> Iterator[Comparison]:
    """One rank's tensor comes to all, over what they held. Each rank is the source once."""
    for source in range(ranks.size):
        mine = ranks.tensor(*[100 * ranks.rank + number for number in range(3)])
        dist.broadcast(mine, src=source, group=ranks.group)
        yield mine, ranks.tensor(*[100 * source + number for number in range(3)])


def reduce_to_one(ranks: RankGroup) -> Iterator[Comparison]:
    """As all_reduce, for one rank only. What the others' tensors hold afterwards is undefined: often partial sums."""
    target = ranks.size - 1
    mine = ranks.tensor(numbers(ranks.size)[ranks.rank])
    dist.reduce(mine, dst=target, group=ranks.group)
    if ranks.rank == target:
        yield mine, ranks.tensor(sum(numbers(ranks.size)))


def all_gather(ranks: RankGroup) -> Iterator[Comparison]:
    """Every rank gets every rank's tensor, as a list; `all_gather_into_tensor` puts them into one, which is faster."""
    mine = ranks.tensor(ranks.rank, -ranks.rank)
    listed = [torch.empty_like(mine) for _ in range(ranks.size)]
    dist.all_gather(listed, mine, group=ranks.group)
    joined = torch.empty(2 * ranks.size, device=ranks.device)
    gather_single(joined, mine, group=ranks.group)
    wanted = ranks.tensor(*[number for rank in range(ranks.size) for number in (rank, -rank)])
    yield torch.cat(listed), wanted
    yield joined, wanted


def gather(ranks: RankGroup) -> Iterator[Comparison]:
    """One rank gets every rank's tensor; only that one gives a list for them."""
    mine = ranks.tensor(ranks.rank + 0.5)
    listed = [torch.empty_like(mine) for _ in range(ranks.size)] if ranks.rank == 0 else None
    dist.gather(mine, listed, dst=0, group=ranks.group)
    if listed is not None:
        yield torch.cat(listed), ranks.tensor(*[rank + 0.5 for rank in range(ranks.size)])


def scatter(ranks: RankGroup) -> Iterator[Comparison]:
    """One rank has a tensor for each; only that one gives the list."""
    source = ranks.size - 1
    listed = [ranks.tensor(rank * rank) for rank in range(ranks.size)] if ranks.rank == source else None
    mine = torch.empty(1, device=ranks.device)
    dist.scatter(mine, listed, src=source, group=ranks.group)
    yield mine, ranks.tensor(ranks.rank**2)


def reduce_scatter(ranks: RankGroup) -> Iterator[Comparison]:
    """Every rank brings a part for each; each gets the sum of its parts.

    With an all_gather after it, it makes an all_reduce: the pair that FSDP is built of.
    """
    parts = [ranks.tensor(10 * ranks.rank + part) for part in range(ranks.size)]
    listed, joined = (torch.empty(1, device=ranks.device) for _ in range(2))
    dist.reduce_scatter(listed, parts, group=ranks.group)
    scatter_single(joined, torch.cat(parts), group=ranks.group)
    wanted = ranks.tensor(sum(10 * rank + ranks.rank for rank in range(ranks.size)))
    yield listed, wanted
    yield joined, wanted


def all_to_all(ranks: RankGroup) -> Iterator[Comparison]:
    """Every rank has a tensor for each: a transpose over ranks, as experts of a mixture exchange their tokens."""
    given = [ranks.tensor(10 * ranks.rank + other) for other in range(ranks.size)]
    taken = [torch.empty(1, device=ranks.device) for _ in range(ranks.size)]
    dist.all_to_all(taken, given, group=ranks.group)
    wanted = ranks.tensor(*[10 * other + ranks.rank for other in range(ranks.size)])
    yield torch.cat(taken), wanted
    joined = torch.empty(ranks.size, device=ranks.device)
    dist.all_to_all_single(joined, torch.cat(given), group=ranks.group)
    yield joined, wanted


def all_to_all_uneven(ranks: RankGroup) -> Iterator[Comparison]:
    """Parts of unequal length: rank r sends r + 1 numbers to each, so it must say how many it takes from each."""
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
