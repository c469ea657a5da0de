"""Create gloo groups and choose the device of a backend."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def new_gloo_group(timeout: float, interface: str | None = None) -> dist.ProcessGroup:
    """Return a new gloo group of all ranks, whatever the default backend is.

    Args:
        timeout: Seconds that ranks wait for each other in it.
        interface: Comma-separated network interfaces; None keeps the environment.
    """
    variable = INTERFACE_VARIABLES[0]  # gloo reads it while the group is created
    previous = os.environ.get(variable)
    if interface is not None:
        os.environ[variable] = interface
    try:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    finally:
        os.environ.pop(variable, None)
        if previous is not None:
            os.environ[variable] = previous
    assert isinstance(group, dist.ProcessGroup)
    return group


def device_for_backend(backend: str, local_rank: int) -> torch.device:
    """Return the device of a backend's tensors."""
    if backend == "nccl":
        return torch.device("cuda", local_rank % max(1, torch.cuda.device_count()))
    return torch.device("cpu")
