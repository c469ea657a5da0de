"""Describe a process group, create gloo groups, choose a backend's device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]

Comparison = tuple[Any, Any]  # actual and expected value on this rank; tensors or plain values
Example = Callable[["RankGroup"], Iterator[Comparison]]
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True)
class RankGroup:
    """A process group as one of its ranks sees it.

    Attributes:
        device: Of the tensors: the CPU for gloo, this rank's GPU for NCCL.
        store: Key-value store that all ranks share.
        group: The process group; None is the default group.
    """

    rank: int
    size: int
    device: torch.device
    store: Store
    group: ProcessGroup | None = None

    @property
    def next(self) -> int:
        """The next rank in a ring."""
        return (self.rank + 1) % self.size

    @property
    def previous(self) -> int:
        """The previous rank in a ring."""
        return (self.rank - 1) % self.size

    def tensor(self, *values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return a one-dimensional tensor on the group's device."""
        return torch.tensor(values, dtype=dtype, device=self.device)


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
