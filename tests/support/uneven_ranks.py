"""Data of which one rank has fewer batches than the other."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, Subset

from tests.support.shapes.loaders import Data, Points
from tests.support.shapes.streams import Stream


class UnevenData(Data):
    """Trains on four batches on rank `short`, and on six on the others.

    Args:
        short: A rank; None: all have six.
        stream: Whether the loader has no length.
    """

    def __init__(self, short: int | None, stream: bool) -> None:
        super().__init__()
        self.short, self.as_stream = short, stream

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank."""
        assert self.trainer is not None
        points = Subset(Points(), range(32 if self.trainer.global_rank == self.short else 48))
        if self.as_stream:
            return self.load(Stream(points))
        return self.load(points, sampler=DistributedSampler(points, num_replicas=1, rank=0))
