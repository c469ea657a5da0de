"""Build process groups and choose their device."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def gloo_group(timeout: float, interface: str | None = None) -> dist.ProcessGroup:
    """Return a new gloo group of all ranks, beside whatever backend the default group has.

    Args:
        timeout: Seconds that ranks wait for one another in it.
        interface: Network interface or several, by comma; None leaves it to the environment.
            Gloo reads it while the group is made.
    """
    before = os.environ.get(INTERFACES[0])
    if interface is not None:
        os.environ[INTERFACES[0]] = interface
    try:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    finally:
        os.environ.pop(INTERFACES[0], None)
        if before is not None:
            os.environ[INTERFACES[0]] = before
    assert isinstance(group, dist.ProcessGroup)
    return group


def device_for(backend: str, local_rank: int) -> torch.device:
    """Return where tensors must be for a backend."""
    return (
        torch.device("cuda", local_rank % max(1, torch.cuda.device_count()))
        if backend == "nccl"
        else torch.device("cpu")
    )
