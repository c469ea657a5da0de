"""Faults made on purpose, in a group of their own: is the rank at fault named, and before the timeout is over?"""

from __future__ import annotations

import re
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import DebugLevel, get_debug_level, set_debug_level  # type: ignore[attr-defined]

from fulgurite.doctor.cluster.groups import gloo_group
from fulgurite.doctor.cluster.rank_group import Ranks

LATE = 1.5  # seconds that the ranks wait for the late one


def late_rank(ranks: Ranks, timeout: float) -> str | None:
    """Have the last rank come too late to a monitored barrier.

    Args:
        ranks: Two or more.
        timeout: Seconds for making the group.

    Returns:
        What is wrong on this rank; None when the late rank was named in time, which rank 0 alone can see.
    """
    late = ranks.size - 1
    group = gloo_group(timeout)
    start, said = time.monotonic(), ""
    if ranks.rank == late:
        time.sleep(2 * LATE)
    else:
        try:
            dist.monitored_barrier(group, timedelta(seconds=LATE), wait_all_ranks=True)
        except RuntimeError as error:
            said = str(error)
    took = time.monotonic() - start
    dist.barrier()
    dist.destroy_process_group(group)
    if ranks.rank != 0:
        return None
    named = re.search(rf"[Rr]anks?\W+{late}\b.* failed to pass monitoredBarrier", said)
    if named is None:
        return f"rank {late} came late and was not named: {said.splitlines()[0] if said else 'no error'}"
    return None if took < 2 * LATE else f"rank {late} came late and was named after {took:.1f} s instead of {LATE:g} s"


def other_shape(ranks: Ranks, timeout: float) -> str | None:
    """Have the last rank bring 8 numbers to an all_reduce of 4, under TORCH_DISTRIBUTED_DEBUG=DETAIL.

    Args:
        ranks: Two or more.
        timeout: Seconds for making the group, and for the all_reduce.

    Returns:
        What is wrong on this rank; None when the mismatch was named in time.
    """
    other = ranks.size - 1
    before = get_debug_level()
    set_debug_level(DebugLevel.DETAIL)
    try:
        group = gloo_group(timeout)
        said = ""
        try:
            dist.all_reduce(torch.ones(8 if ranks.rank == other else 4), group=group)
        except RuntimeError as error:
            said = str(error)
    finally:
        set_debug_level(before)
    dist.barrier()
    dist.destroy_process_group(group)
    if "mismatch" in said and "TensorShape=[8]" in said and "TensorShape=[4]" in said:
        return None
    return f"rank {other} brought another shape and that was not named: {said.splitlines()[0] if said else 'no error'}"


DRILLS = {"a late rank is named": late_rank, "another shape is named": other_shape}
