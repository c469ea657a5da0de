"""Point-to-point messages by example, with two ranks or more.

`send` may block until the other rank receives. If all ranks send first, they deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist

from fulgurite.doctor.cluster.rank_group import Comparison, Example, RankGroup


def send_and_recv(ranks: RankGroup) -> Iterator[Comparison]:
    """Pass a token around the ring: rank 0 sends first, each rank adds its number."""
    token = ranks.tensor(1000)
    if ranks.rank == 0:
        dist.send(token, ranks.next, group=ranks.group, tag=7)
    dist.recv(token, ranks.previous, group=ranks.group, tag=7)
    yield token, ranks.tensor(1000 + sum(range(ranks.rank or ranks.size)))
    if ranks.rank != 0:
        dist.send(token + ranks.rank, ranks.next, group=ranks.group, tag=7)


def recv_from_any(ranks: RankGroup) -> Iterator[Comparison]:
    """Receive from any rank: `recv` without a source returns the sender (not NCCL)."""
    if ranks.rank != 0:
        dist.send(ranks.tensor(10 * ranks.rank), 0, group=ranks.group, tag=8)
        return
    received = {}
    for _ in range(ranks.size - 1):
        message = torch.empty(1, device=ranks.device)
        sender = dist.recv(message, group=ranks.group, tag=8)
        received[sender] = message.item()
    yield received, {rank: 10.0 * rank for rank in range(1, ranks.size)}


def isend_and_irecv(ranks: RankGroup) -> Iterator[Comparison]:
    """Send and receive asynchronously; the tensors are in use until `wait` returns."""
    taken = torch.empty(2, device=ranks.device)
    sending = dist.isend(ranks.tensor(ranks.rank, 0.25), ranks.next, group=ranks.group)
    receiving = dist.irecv(taken, ranks.previous, group=ranks.group)
    for work in (sending, receiving):
        assert work is not None  # None is for processes outside the group
        work.wait()
    yield taken, ranks.tensor(ranks.previous, 0.25)


def batched(ranks: RankGroup) -> Iterator[Comparison]:
    """Batch several messages in any order, as pipeline stages do with both neighbours."""
    before, after = (torch.empty(1, device=ranks.device) for _ in range(2))
    mine = ranks.tensor(ranks.rank)
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, mine, ranks.next, ranks.group, tag=1),
            dist.P2POp(dist.irecv, before, ranks.previous, ranks.group, tag=1),
            dist.P2POp(dist.isend, mine, ranks.previous, ranks.group, tag=2),
            dist.P2POp(dist.irecv, after, ranks.next, ranks.group, tag=2),
        ]
    )
    for work in works:
        work.wait()
    yield before, ranks.tensor(ranks.previous)
    yield after, ranks.tensor(ranks.next)


def objects(ranks: RankGroup) -> Iterator[Comparison]:
    """Send pickled objects; only between trusted ranks, because a pickle can run code."""
    if ranks.rank == 0:
        dist.send_object_list([{"lr": 0.1}, "go"], dst=1, group=ranks.group, device=ranks.device)
    elif ranks.rank == 1:
        taken = [None, None]
        dist.recv_object_list(taken, src=0, group=ranks.group, device=ranks.device)
        yield taken, [{"lr": 0.1}, "go"]


POINT_TO_POINT: dict[str, Example] = {
    "send, recv": send_and_recv,
    "recv from any": recv_from_any,
    "isend, irecv": isend_and_irecv,
    "batch_isend_irecv": batched,
    "send, recv of objects": objects,
}
