"""State where one looks last: submodules, transforms, workers, iterators, classes, modules."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Sampler, Subset

from tests.support.shapes.loaders import ROWS, Data, Points
from tests.support.shapes.models import Net

steps_of_module = 0


class Anneal(nn.Module):
    """A layer with a temperature that falls at each forward pass in training."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.temperature *= 0.95
        return x / self.temperature


@dataclass
class Statistics:
    count: int = 0
    losses: list[float] = field(default_factory=list)


class Loss:
    """A loss that is no module and keeps a running mean."""

    def __init__(self) -> None:
        self.mean = 1.0

    def __call__(self, loss: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * float(loss)
        return loss / self.mean


class Hides(Net):
    steps_of_class = 0

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.anneal = Anneal()
        self.statistics = Statistics()
        self.loss_function = Loss()
        self.classes: Counter[int] = Counter()
        self.by_name: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self.random_state = np.random.RandomState(0)
        self.extra: Iterator[Any] = iter(())

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = getattr(self, f"_{self.kind}")(batch, self.loss(batch))
        self.log("train/loss", loss)
        return loss

    def _submodule(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.anneal(loss)
        return scaled

    def _dataclass(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        self.statistics.count += 1
        self.statistics.losses.append(float(loss))
        return loss / self.statistics.count

    def _loss_object(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        return self.loss_function(loss)

    def _counter(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        self.classes.update(batch[1].tolist())
        return loss / self.classes[int(batch[1][0])]

    def _arrays(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        self.by_name["x"].append(batch[0].mean(0).numpy())
        return loss * (1 + float(np.mean(self.by_name["x"])))

    def _legacy_numpy(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss * float(self.random_state.rand())

    def _iterator(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        other = next(self.extra, None)
        if other is None:
            self.extra = iter(DataLoader(Points(24, 9), batch_size=8))
            other = next(self.extra)
        return loss + self.loss(other)

    def _class(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        Hides.steps_of_class += 1
        return loss / Hides.steps_of_class

    def _module(self, batch: Any, loss: torch.Tensor) -> torch.Tensor:
        global steps_of_module
        steps_of_module += 1
        return loss / steps_of_module


class Jitter:
    """A transform with a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + float(self.rng.normal())


class Transformed(Points):
    def __init__(self) -> None:
        super().__init__(noise=0.0)
        self.transforms = [Jitter()]
        self.legacy = np.random.RandomState(4)

    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        for transform in self.transforms:
            x = transform(x)
        return x + float(self.legacy.normal()), self.y[i], i


class Counting(Points):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.count = 0

    def __getitem__(self, i: int) -> Any:
        self.count += 1
        return self.x[i] * (1 + self.count / 100), self.y[i], i


class CountsEpochs(Sampler[int]):
    """Seeds the order by a counter that each pass raises."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        g = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(self.n, generator=g).tolist())


class Buffered(IterableDataset[Any]):
    """Shuffles in a buffer with a generator of its own; ends never, if asked to."""

    def __init__(self, ds: Any, *, endless: bool = False) -> None:
        self.ds, self.endless = ds, endless
        self.rng = random.Random(2)

    def __iter__(self) -> Iterator[Any]:
        buffer: list[Any] = []
        while True:
            for i in range(len(self.ds)):
                buffer.append(self.ds[i])
                if len(buffer) > 8:
                    yield buffer.pop(self.rng.randrange(len(buffer)))
            if not self.endless:
                break
        yield from buffer


class HiddenData(Data):
    def train_dataloader(self) -> Any:
        return getattr(self, self.kind)()

    def transform(self) -> Any:
        return self.load(Transformed(), shuffle=True)

    def subset_of_transformed(self) -> Any:
        return self.load(Subset(Transformed(), range(ROWS)), shuffle=True)

    def counting(self) -> Any:
        return self.load(Counting(), shuffle=True)

    def counts_epochs(self) -> Any:
        return self.load(Points(), sampler=CountsEpochs(ROWS))

    def distributed(self) -> Any:
        return self.load(Points(), sampler=DistributedSampler(Points(), 1, 0))

    def buffered(self) -> Any:
        return self.load(Buffered(Points()))

    def endless(self) -> Any:
        return self.load(Buffered(Points(), endless=True))

    def batches(self) -> Any:
        return self.load(list(DataLoader(Points(), batch_size=8)), batch_size=None, shuffle=True)
