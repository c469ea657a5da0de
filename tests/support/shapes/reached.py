"""State that only the code of data sets, collate functions and models reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import ConcatDataset, DataLoader, Sampler

from tests.support.shapes import helpers
from tests.support.shapes.helpers import fading
from tests.support.shapes.loaders import ROWS, Data, Points, jitter
from tests.support.shapes.models import Net


class Calls:
    """A transform that changes its input more with each call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls / 100


class CountingCollate:
    def __init__(self) -> None:
        self.step = 0

    def __call__(self, rows: list[Any]) -> Any:
        self.step += 1
        x, y, i = jitter(rows)
        return x / self.step, y, i


def counting_collate() -> Callable[[list[Any]], Any]:
    step = 0

    def collate(rows: list[Any]) -> Any:
        nonlocal step
        step += 1
        x, y, i = jitter(rows)
        return x / step, y, i

    return collate


class Changing(Points):
    """Changes its examples by what it keeps in many places."""

    by_class: dict[int, int] = {}

    def __init__(self, change: str) -> None:
        super().__init__(noise=0.0)
        self.change = change
        self.history: list[int] = []
        self.transform = Calls()
        self.rng = np.random.default_rng(1)
        self.level = 0
        self.file: Any = None

    def __getitem__(self, i: int) -> Any:
        return getattr(self, f"_{self.change}")(self.x[i], i), self.y[i], i

    def _none(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x

    def _history(self, x: torch.Tensor, i: int) -> torch.Tensor:
        self.history.append(i)
        return x / len(self.history)

    def _transform(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return self.transform(x)

    def _class(self, x: torch.Tensor, i: int) -> torch.Tensor:
        Changing.by_class[i] = Changing.by_class.get(i, 0) + 1
        return x / Changing.by_class[i]

    def _dict(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return helpers.less_often(x, i)

    def _variable(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return fading(x)

    def _rng(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x + float(self.rng.normal())

    def _opened(self, x: torch.Tensor, i: int) -> torch.Tensor:
        if self.file is None:
            self.file = Path(__file__).open("rb")  # noqa: SIM115 - as users write it
        self.file.seek(i)
        return x * float(self.file.read(1)[0])

    def _level(self, x: torch.Tensor, i: int) -> torch.Tensor:
        return x * (1 + self.level)


class Numbered(Sampler[int]):
    """Counts its passes in its class."""

    passes = 0

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        Numbered.passes += 1
        return iter(np.random.default_rng(Numbered.passes).permutation(ROWS).tolist())


def new_rng(worker: int) -> None:
    info: Any = torch.utils.data.get_worker_info()
    info.dataset.rng = np.random.default_rng(info.seed)


class ReachedData(Data):
    def train_dataloader(self) -> Any:
        kind, _, detail = self.kind.partition(" ")
        return getattr(self, f"_{kind}")(detail)

    def _set(self, change: str) -> DataLoader[Any]:
        return self.load(Changing(change), shuffle=True)

    def _collate(self, kind: str) -> DataLoader[Any]:
        kinds: dict[str, Any] = {"object": CountingCollate(), "closure": counting_collate(), "helper": helpers.collate}
        return self.load(Points(), shuffle=True, collate_fn=kinds[kind])

    def _sampler(self, _: str) -> DataLoader[Any]:
        return self.load(Points(), sampler=Numbered())

    def _init(self, _: str) -> DataLoader[Any]:
        return self.load(Changing("rng"), shuffle=True, worker_init_fn=new_rng)

    def _many(self, _: str) -> DataLoader[Any]:
        parts = [Changing("rng") for _ in range(80)]
        for number, part in enumerate(parts):
            part.x, part.y, part.rng = part.x[:1], part.y[:1], np.random.default_rng(number)
        return self.load(ConcatDataset(parts), shuffle=True)


class SetLevel(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _train_set(trainer).level = trainer.current_epoch


class AddLevel(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        _train_set(trainer).level += 1


def _train_set(trainer: Trainer) -> Any:
    loader: Any = trainer.train_dataloader
    return loader.dataset


class Mixes(Net):
    """Draws from a generator of a helper module."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss([helpers.mixup(batch[0]), *batch[1:]])
        self.log("train/loss", loss)
        return loss
