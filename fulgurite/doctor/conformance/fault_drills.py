"""Inject faults in a new group and check that torch names the rank in time."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import DebugLevel, get_debug_level, set_debug_level  # type: ignore[attr-defined]

from fulgurite.doctor.cluster.rank_group import RankGroup, new_gloo_group

BARRIER_SECONDS = 1.5


def drill_late_rank(ranks: RankGroup, timeout: float) -> str | None:
    """Delay the last rank. Return the failure, on rank 0, unless a monitored barrier names the late rank in time."""
    late = ranks.size - 1
    group = new_gloo_group(timeout)
    start, message = time.monotonic(), ""
    if ranks.rank == late:
        time.sleep(2 * BARRIER_SECONDS)
    else:
        try:
            dist.monitored_barrier(group, timedelta(seconds=BARRIER_SECONDS), wait_all_ranks=True)
        except RuntimeError as error:
            message = str(error)
    seconds = time.monotonic() - start
    dist.barrier()
    dist.destroy_process_group(group)
    if ranks.rank != 0:
        return None
    if not re.search(rf"[Rr]anks?\W+{late}\b.* failed to pass monitoredBarrier", message):
        return f"torch did not name rank {late}, which was late: {_first_line(message)}"
    if seconds >= 2 * BARRIER_SECONDS:
        return f"torch named rank {late}, which was late, after {seconds:.1f} s instead of {BARRIER_SECONDS:g} s"
    return None


def drill_shape_mismatch(ranks: RankGroup, timeout: float) -> str | None:
    """Pass a longer tensor on the last rank, under TORCH_DISTRIBUTED_DEBUG=DETAIL. Return the failure to report it."""
    other, message, previous = ranks.size - 1, "", get_debug_level()
    set_debug_level(DebugLevel.DETAIL)
    try:
        group = new_gloo_group(timeout)
        try:
            dist.all_reduce(torch.ones(8 if ranks.rank == other else 4), group=group)
        except RuntimeError as error:
            message = str(error)
    finally:
        set_debug_level(previous)
    dist.barrier()
    dist.destroy_process_group(group)
    if all(text in message for text in ("mismatch", "TensorShape=[8]", "TensorShape=[4]")):
        return None
    return f"torch did not report the other shape of rank {other}: {_first_line(message)}"


def _first_line(message: str) -> str:
    return message.splitlines()[0] if message else "no error"


DRILLS = {"a late rank is named": drill_late_rank, "another shape is named": drill_shape_mismatch}
