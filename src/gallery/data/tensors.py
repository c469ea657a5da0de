"""Examples that fit in memory, from any function that makes them: synthetic data, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fulgurite.core.errors import UserError
from fulgurite.data import device_batch_size
from src.data.batches import identity_collate

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Split:
    """Inputs, one tensor or several of equal length, and targets."""

    inputs: tuple[Tensor, ...]
    targets: Tensor


@dataclass(frozen=True)
class Splits:
    """What a source makes. Without examples for a test, those for validation are used."""

    train: Split
    val: Split
    test: Split | None = None


class Rows(Dataset[Any]):
    """Rows of a split, returned a batch at a time."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.targets)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Inputs, Tensor]:
        """Return inputs and targets of the rows; DataLoader calls this once per batch."""
        rows = torch.as_tensor(indices)
        inputs = tuple(part[rows] for part in self.split.inputs)
        return inputs[0] if len(inputs) == 1 else inputs, self.split.targets[rows]


class TensorDataModule(LightningDataModule):
    """Serves what a source makes, in shuffled batches.

    Args:
        source: Called with a generator; returns `Splits`. Config: a function with `_partial_: true`.
        batch_size: Global batch size. It must be divisible by the number of data-parallel ranks. None takes all
            examples.
        seed: Seed of the source.
    """

    def __init__(self, source: Callable[[torch.Generator], Splits], batch_size: int | None = 10, seed: int = 0) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise UserError(f"data.batch_size={batch_size}: must be 1 or more. Use null for all examples at once.")
        self.source, self.batch_size, self.seed = source, batch_size, seed

    def setup(self, stage: str | None = None) -> None:
        """Make the examples, the same for every `stage` and on every rank."""
        if not hasattr(self, "splits"):
            self.splits = self.source(torch.Generator().manual_seed(self.seed))

    def _loader(self, split: Split, *, shuffle: bool = False) -> DataLoader[Any]:
        size = self.batch_size or len(split.targets)
        batch_size = device_batch_size(size, self.trainer) if self.batch_size else size
        return DataLoader(Rows(split), batch_size=batch_size, shuffle=shuffle, collate_fn=identity_collate)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, in a new order each epoch."""
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches, always in the same order."""
        return self._loader(self.splits.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches, always in the same order."""
        return self._loader(self.splits.test or self.splits.val)
