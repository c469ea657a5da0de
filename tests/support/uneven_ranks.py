"""Data and models of which one rank has fewer batches than the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, Sampler, Subset

from tests.support.shapes.loaders import Data, Points
from tests.support.shapes.models import Net
from tests.support.shapes.streams import Stream


class ShortBatches(Sampler[list[int]]):
    """Has a length of six batches and yields fewer."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(range(start, start + 8)) for start in range(0, 8 * self.batches, 8)])


class UnevenData(Data):
    """Trains on four batches on rank `short`, and on six on the others.

    Args:
        short: A rank; None: all have six.
        form: `sized` by its true length, `stream` without a length, or `wrong` with a length of six everywhere.
    """

    def __init__(self, short: int | None, form: str = "sized") -> None:
        super().__init__()
        self.short, self.form = short, form

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank."""
        assert self.trainer is not None
        batches = 4 if self.trainer.global_rank == self.short else 6
        points = Subset(Points(), range(8 * batches))
        if self.form == "stream":
            return self.load(Stream(points))
        if self.form == "wrong":
            return DataLoader(Points(), batch_sampler=ShortBatches(batches))
        return self.load(points, sampler=DistributedSampler(points, num_replicas=1, rank=0))


class SkipsRest(Net):
    """Ends each epoch after two of its four batches on rank `short`; None: on all ranks.

    Args:
        short: A rank.
        how: `return` -1 from the hook, or `stop` the trainer.
    """

    def __init__(self, short: int | None, how: str = "return") -> None:
        super().__init__()
        self.short, self.how = short, how

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Skip the rest of the epoch."""
        is_short = batch_idx == 2 and self.short in (None, self.global_rank)
        if is_short and self.how == "stop":
            self.trainer.should_stop = True
        return -1 if is_short and self.how == "return" else None
