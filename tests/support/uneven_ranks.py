"""Data of which rank 0 has fewer batches than the other ranks."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, Subset

from tests.support.shapes.loaders import Data, Points


class UnevenData(Data):
    """Trains on four batches on rank 0 and on six on the others."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank."""
        assert self.trainer is not None
        points = Subset(Points(), range(32 if self.trainer.global_rank == 0 else 48))
        return self.load(points, sampler=DistributedSampler(points, num_replicas=1, rank=0))
