"""Samplers, validation loaders and data sets that keep state or change their length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, Subset

from tests.support.shapes.hidden import Counting
from tests.support.shapes.loaders import ROWS, Data, Points


class Shuffled:
    """A batch sampler of no class of torch, which shuffles its batches in place."""

    def __init__(self, n: int, size: int) -> None:
        self.batches = [list(range(first, first + size)) for first in range(0, n, size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.batches)
        yield from self.batches


class ShuffledIndices:
    """A sampler of no class of torch; its order is that of the pass before, shuffled."""

    def __init__(self, n: int) -> None:
        self.order = {"indices": list(range(n))}

    def __len__(self) -> int:
        return len(self.order["indices"])

    def __iter__(self) -> Iterator[int]:
        random.shuffle(self.order["indices"])
        return iter(self.order["indices"])


class Mined(ShuffledIndices):
    """A sampler that draws the examples which the training step gave a large weight."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.weights = torch.ones(n)

    def __iter__(self) -> Iterator[int]:
        for _ in range(len(self)):
            yield int(torch.multinomial(self.weights, 1))


class Mixed(ShuffledIndices):
    """A sampler of samplers."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.parts = [ShuffledIndices(n // 2), ShuffledIndices(n - n // 2)]

    def __iter__(self) -> Iterator[int]:
        for part in self.parts:
            yield from part


class Unsized:
    """A batch sampler without a length."""

    def __init__(self, n: int) -> None:
        self.indices = list(range(n))

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.indices)
        for first in range(0, len(self.indices), 8):
            yield self.indices[first : first + 8]


class Active(Points):
    """Examples of which a part is in use."""

    def __init__(self, n: int = ROWS, used: int = ROWS) -> None:
        super().__init__(n)
        self.active = list(range(used))

    def __len__(self) -> int:
        return len(self.active)

    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(self.active[i])


class Resize(Callback):
    """Changes the number of examples in use after each epoch."""

    def __init__(self, by: int) -> None:
        self.by = by

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        points = trainer.datamodule.points  # type: ignore[attr-defined]
        points.active = list(range(min(ROWS, len(points.active) + self.by)))


class Mine(Callback):
    """Gives the examples of each batch another weight."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        weights = trainer.train_dataloader.sampler.weights  # type: ignore[union-attr]
        weights[args[1][2]] *= 0.5


class KeepingData(Data):
    def __init__(self, kind: str, num_workers: int = 0, used: int = ROWS) -> None:
        super().__init__(kind, num_workers)
        self.points = Active(used=used)

    def train_dataloader(self) -> Any:
        return getattr(self, self.kind)()

    def shuffled(self) -> Any:
        return DataLoader(Points(), batch_sampler=Shuffled(ROWS, 8), **self.kw)

    def indices(self) -> Any:
        return self.load(Points(), sampler=ShuffledIndices(ROWS))

    def mined(self) -> Any:
        return self.load(Points(), sampler=Mined(ROWS))

    def mixed(self) -> Any:
        return self.load(Points(), sampler=Mixed(ROWS))

    def unsized(self) -> Any:
        return DataLoader(Points(), batch_sampler=Unsized(ROWS), **self.kw)

    def unsized_counted(self) -> Any:
        return DataLoader(Counting(), batch_sampler=Unsized(ROWS), **self.kw)

    def resized(self) -> Any:
        return self.load(self.points, shuffle=True)

    def resized_concat(self) -> Any:
        return self.load(ConcatDataset([self.points, Points(8, 3)]), shuffle=True)

    def drawn(self) -> Any:
        return self.load(Subset(Points(), torch.randperm(ROWS)[:40].tolist()), shuffle=True)


class AssignedData(Data):
    """Its `train_dataloader` is a function that counts its calls in its closure."""

    def __init__(self) -> None:
        super().__init__()
        count = 0

        def train_dataloader() -> Any:
            nonlocal count
            count += 1
            return self.load(Points(noise=0.1 * count), shuffle=True)

        self.train_dataloader = train_dataloader  # type: ignore[method-assign]


class EvaluatedData(Data):
    """Validation loaders that keep state."""

    def __init__(self, kind: str, num_workers: int = 0) -> None:
        super().__init__()
        self.kind = kind
        self.workers: dict[str, Any] = {"num_workers": num_workers}

    def train_dataloader(self) -> Any:
        return self.load(Points(), shuffle=True)

    def val_dataloader(self) -> Any:
        return getattr(self, f"_{self.kind}")(Points(24, 1, 0.0))

    def _generator(self, ds: Any) -> Any:
        g = torch.Generator().manual_seed(5)
        return DataLoader(ds, 8, sampler=RandomSampler(ds, num_samples=8, generator=g), **self.workers)

    def _two(self, ds: Any) -> Any:
        shuffled = DataLoader(ds, 8, shuffle=True, generator=torch.Generator().manual_seed(1), **self.workers)
        part = RandomSampler(ds, num_samples=8, generator=torch.Generator().manual_seed(2))
        return [shuffled, DataLoader(ds, 8, sampler=part, **self.workers)]

    def _counted(self, ds: Any) -> Any:
        return DataLoader(Counting(24, 1), 8)

    def _sampler(self, ds: Any) -> Any:
        shuffled = Shuffled(24, 8)
        return DataLoader(Subset(ds, range(24)), batch_sampler=shuffled)
