"""Describe a process group to a conformance example, and its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]

Comparison = tuple[Any, Any]  # actual and expected value on this rank; tensors or plain values
Example = Callable[["RankGroup"], Iterator[Comparison]]


@dataclass(frozen=True)
class RankGroup:
    """A process group as one of its ranks sees it.

    Attributes:
        rank: Of this process, 0 to `size` - 1.
        size: Number of ranks.
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
