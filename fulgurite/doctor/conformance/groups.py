"""Subgroups, barriers and object collectives by example."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import Comparison, Example, RankGroup


def subgroups(ranks: RankGroup) -> Iterator[Comparison]:
    """Sum in a group of even and one of odd ranks; every rank must create both groups."""
    halves = [list(range(start, ranks.size, 2)) for start in range(min(2, ranks.size))]
    made = [dist.new_group(members) for members in halves]
    members, mine = halves[ranks.rank % 2], made[ranks.rank % 2]
    total = ranks.tensor(ranks.rank + 1)
    dist.all_reduce(total, group=mine)
    yield total, ranks.tensor(sum(member + 1 for member in members))
    yield dist.get_rank(mine), members.index(ranks.rank)
    yield dist.get_world_size(mine), len(members)
    if ranks.size > 1:
        yield dist.get_rank(made[1 - ranks.rank % 2]), -1
    dist.destroy_process_group(mine)


def barrier(ranks: RankGroup) -> Iterator[Comparison]:
    """Wait until all ranks have entered."""
    key = "example-barrier"
    ranks.store.add(key, 1)
    dist.barrier(group=ranks.group)
    yield ranks.store.add(key, 0) % ranks.size, 0


def monitored_barrier(ranks: RankGroup) -> Iterator[Comparison]:
    """Wait with a timeout that names the missing ranks; gloo only."""
    ranks.store.add("example-monitored", 1)
    dist.monitored_barrier(group=ranks.group, timeout=timedelta(seconds=10), wait_all_ranks=True)
    yield ranks.store.add("example-monitored", 0) % ranks.size, 0


def object_collectives(ranks: RankGroup) -> Iterator[Comparison]:
    """Exchange pickled objects, between trusted ranks only: a pickle can run code."""
    objects: list[Any] = [{"seed": 7, "from": ranks.rank}]
    dist.broadcast_object_list(objects, src=0, group=ranks.group, device=ranks.device)
    yield objects, [{"seed": 7, "from": 0}]

    of_all: list[Any] = [None] * ranks.size
    dist.all_gather_object(of_all, f"rank {ranks.rank}", group=ranks.group)
    yield of_all, [f"rank {rank}" for rank in range(ranks.size)]

    of_each: list[Any] | None = [None] * ranks.size if ranks.rank == 0 else None
    dist.gather_object((ranks.rank,), of_each, dst=0, group=ranks.group)
    yield of_each, [(rank,) for rank in range(ranks.size)] if ranks.rank == 0 else None

    mine: list[Any] = [None]
    parts = [{"part": rank} for rank in range(ranks.size)] if ranks.rank == 0 else None
    dist.scatter_object_list(mine, parts, src=0, group=ranks.group)
    yield mine, [{"part": ranks.rank}]


GROUPS: dict[str, Example] = {
    "new_group": subgroups,
    "barrier": barrier,
    "monitored_barrier": monitored_barrier,
    "collectives of objects": object_collectives,
}
