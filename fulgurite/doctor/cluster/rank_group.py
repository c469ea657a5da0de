"""What an example of torch.distributed is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]

Claim = tuple[Any, Any]  # what came out on this rank, and what must have; tensors or plain values
Example = Callable[["Ranks"], Iterator[Claim]]


@dataclass(frozen=True)
class Ranks:
    """The processes that take part, seen from one of them.

    Attributes:
        rank: Of this process, 0 to `size` - 1.
        size: How many processes there are.
        device: Where tensors must be for this backend: the CPU for gloo, this process's own GPU for NCCL.
        store: Small values by name that every rank sees.
        group: The processes' group; None is the default one, made by `init_process_group`.
    """

    rank: int
    size: int
    device: torch.device
    store: Store
    group: ProcessGroup | None = None

    @property
    def next(self) -> int:
        """The rank after this one, in a ring."""
        return (self.rank + 1) % self.size

    @property
    def previous(self) -> int:
        """The rank before this one, in a ring."""
        return (self.rank - 1) % self.size

    def tensor(self, *values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return a tensor of shape (number of values,) on the right device."""
        return torch.tensor(values, dtype=dtype, device=self.device)
