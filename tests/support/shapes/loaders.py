"""Data modules as users write them: every sampler and loader form of torch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests.support.shapes.streams import ResumableStream, Stream

ROWS = 56  # seven batches of eight: no multiple of the steps between two saves


class Points(Dataset[Any]):
    def __init__(self, n: int = ROWS, seed: int = 0, noise: float = 0.1) -> None:
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 16, generator=g)
        self.y = (self.x[:, 0] > 0).long()
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + self.noise * torch.randn(16), self.y[i], i


class OwnSampler(Sampler[int]):
    """Shuffles with a generator that it keeps."""

    def __init__(self, n: int, rng: str) -> None:
        self.n, self.rng = n, rng
        self.torch_rng = torch.Generator().manual_seed(5)
        self.numpy_rng = np.random.default_rng(5)
        self.python_rng = random.Random(5)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.n))
        if self.rng == "torch":
            order = torch.randperm(self.n, generator=self.torch_rng).tolist()
        elif self.rng == "numpy":
            self.numpy_rng.shuffle(order)
        elif self.rng == "python":
            self.python_rng.shuffle(order)
        else:
            order = torch.randperm(self.n).tolist()
        return iter(order)


class Buckets(Sampler[list[int]]):
    """Batches of neighbours, in another order each epoch."""

    def __init__(self, n: int, batch_size: int) -> None:
        self.n, self.batch_size, self.epoch = n, batch_size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        g = torch.Generator().manual_seed(self.epoch)
        for b in torch.randperm(len(self), generator=g).tolist():
            yield list(range(b * self.batch_size, (b + 1) * self.batch_size))


class BucketsOfOwn(Buckets):
    def __init__(self, n: int, batch_size: int) -> None:
        super().__init__(n, batch_size)
        self.g = torch.Generator().manual_seed(9)

    def __iter__(self) -> Iterator[list[int]]:
        for b in torch.randperm(len(self), generator=self.g).tolist():
            yield list(range(b * self.batch_size, (b + 1) * self.batch_size))


class UserLoader(DataLoader[Any]):
    """Like torch_geometric's: a subclass."""


def jitter(rows: list[Any]) -> Any:
    x, y, i = (torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*rows, strict=True))
    return x + random.gauss(0, 0.1) + 0.1 * np.random.standard_normal(), y, i  # noqa: NPY002


class Data(LightningDataModule):
    def __init__(self, kind: str = "shuffle", num_workers: int = 0, persistent: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.kw: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": persistent}

    def load(self, ds: Any, **kw: Any) -> DataLoader[Any]:
        return DataLoader(ds, **{"batch_size": 8, **self.kw, **kw})

    def train_dataloader(self) -> Any:
        return getattr(self, self.kind)(Points())

    def val_dataloader(self) -> Any:
        return self.load(Points(24, 1, 0.0), num_workers=0, persistent_workers=False)

    def test_dataloader(self) -> Any:
        return self.load(Points(24, 2, 0.0), num_workers=0, persistent_workers=False)

    # one method a form

    def sequential(self, ds: Any) -> Any:
        return self.load(ds)

    def shuffle(self, ds: Any) -> Any:
        return self.load(ds, shuffle=True)

    def drop_last(self, ds: Any) -> Any:
        return self.load(ds, shuffle=True, drop_last=True, batch_size=9)

    def replacement(self, ds: Any) -> Any:
        return self.load(ds, sampler=RandomSampler(ds, replacement=True, num_samples=64))

    def num_samples(self, ds: Any) -> Any:
        return self.load(ds, sampler=RandomSampler(ds, num_samples=56))

    def own_generator(self, ds: Any) -> Any:
        return self.load(ds, sampler=RandomSampler(ds, generator=torch.Generator().manual_seed(3)))

    def loader_generator(self, ds: Any) -> Any:
        return self.load(ds, shuffle=True, generator=torch.Generator().manual_seed(3))

    def subset(self, ds: Any) -> Any:
        return self.load(ds, sampler=SubsetRandomSampler(range(0, ROWS, 1)))

    def weighted(self, ds: Any) -> Any:
        return self.load(ds, sampler=WeightedRandomSampler([1.0 + 9.0 * float(y) for y in ds.y], ROWS))

    def batch_sampler(self, ds: Any) -> Any:
        return DataLoader(ds, batch_sampler=BatchSampler(RandomSampler(ds), 8, drop_last=False), **self.kw)

    def batch_sampler_drop(self, ds: Any) -> Any:
        return DataLoader(ds, batch_sampler=BatchSampler(SequentialSampler(ds), 9, drop_last=True), **self.kw)

    def sampler_torch(self, ds: Any) -> Any:
        return self.load(ds, sampler=OwnSampler(ROWS, "torch"))

    def sampler_numpy(self, ds: Any) -> Any:
        return self.load(ds, sampler=OwnSampler(ROWS, "numpy"))

    def sampler_python(self, ds: Any) -> Any:
        return self.load(ds, sampler=OwnSampler(ROWS, "python"))

    def sampler_global(self, ds: Any) -> Any:
        return self.load(ds, sampler=OwnSampler(ROWS, "global"))

    def buckets(self, ds: Any) -> Any:
        return DataLoader(ds, batch_sampler=Buckets(ROWS, 8), **self.kw)

    def buckets_of_own(self, ds: Any) -> Any:
        return DataLoader(ds, batch_sampler=BucketsOfOwn(ROWS, 8), **self.kw)

    def no_batching(self, ds: Any) -> Any:
        batches = [jitter([ds[i] for i in range(first, first + 8)]) for first in range(0, ROWS, 8)]
        return DataLoader(batches, batch_size=None, shuffle=True, **self.kw)  # type: ignore[arg-type]

    def collate(self, ds: Any) -> Any:
        return self.load(ds, shuffle=True, collate_fn=jitter)

    def own_loader(self, ds: Any) -> Any:
        return UserLoader(ds, batch_size=8, shuffle=True, **self.kw)

    def stream(self, ds: Any) -> Any:
        return self.load(Stream(ds))

    def resumable_stream(self, ds: Any) -> Any:
        return self.load(ResumableStream(ds))

    def stateful(self, ds: Any) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(ds, batch_size=8, shuffle=True, **self.kw)

    def stateful_stream(self, ds: Any) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(ResumableStream(ds), batch_size=8, **self.kw)

    def dict_of_two(self, ds: Any) -> Any:
        return {"short": self.load(Points(24, 3), shuffle=True), "long": self.load(ds, shuffle=True)}

    def list_of_two(self, ds: Any) -> Any:
        return [self.load(ds, shuffle=True), self.load(Points(ROWS, 3), shuffle=True)]

    def nested(self, ds: Any) -> Any:
        return {
            "a": self.load(ds, shuffle=True),
            "b": [self.load(Points(24, 3)), self.load(Points(24, 4), shuffle=True)],
        }

    def _combined(self, ds: Any, mode: Any) -> Any:
        return CombinedLoader([self.load(Points(24, 3), shuffle=True), self.load(ds, shuffle=True)], mode)

    def min_size(self, ds: Any) -> Any:
        return CombinedLoader([self.load(Points(80, 3), shuffle=True), self.load(ds, shuffle=True)], "min_size")

    def max_size(self, ds: Any) -> Any:
        return self._combined(ds, "max_size")

    def max_size_cycle(self, ds: Any) -> Any:
        return self._combined(ds, "max_size_cycle")

    def one_after_another(self, ds: Any) -> Any:
        return self._combined(ds, "sequential")
