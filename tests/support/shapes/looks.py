"""Code that looks at the loaders of a run, and changes or reads them on the side."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Sampler

from tests.support.shapes.loaders import ROWS, Buckets, Data, Points
from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use


def data_of(model: Any) -> Any:
    """Return the data module of the run."""
    return model.trainer.datamodule


class Scaled(Net):
    scale = 1.0

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss(batch) * self.scale


class ReadsBatchSize(Callback):
    """Scales the loss by what the loader has, as plain torch gives it."""

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        loader: Any = trainer.train_dataloader
        assert (loader.batch_sampler.batch_size, loader.batch_sampler.drop_last) == (8, False)
        assert loader.drop_last is False
        model.scale = 8 / loader.batch_size + batch_idx


def plain(rows: list[Any]) -> Any:
    x, y, i = (torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*rows, strict=True))
    return x, y, i


def mixed(rows: list[Any]) -> Any:
    x, y, i = plain(rows)
    return x + x.flip(0), y, i


class Mixes(Data):
    def train_dataloader(self) -> Any:
        return self.load(Points(), shuffle=True, collate_fn=mixed)


class StopsMixing(Callback):
    """Replaces the collate function after the first epoch."""

    def __init__(self, form: str = "function") -> None:
        self.form = form

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        loader: Any = trainer.train_dataloader
        loader.collate_fn = plain if self.form == "function" else lambda rows: (*plain(rows),)

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        far = float((batch[0] - trainer.train_dataloader.dataset.x[batch[2]]).abs().mean())
        assert self.form != "function" or (far < 0.5) == (trainer.current_epoch > 0)


class StopsMixingAmid(StopsMixing):
    """Replaces it amid the first epoch, from the second one on."""

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None: ...

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            trainer.train_dataloader.collate_fn = plain


class MixesValidation(Callback):
    """Replaces the collate function of the validation after the first epoch, and checks that it is used."""

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        trainer.val_dataloaders.collate_fn = mixed

    def on_validation_batch_start(
        self, trainer: Any, model: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        far = float((batch[0] - Points(24, 1, 0.0).x[batch[2]]).abs().mean())
        assert (far > 0.5) == (trainer.current_epoch > 1 or trainer.global_step > 7)


class ValidationInWorkers(Data):
    def val_dataloader(self) -> Any:
        return self.load(Points(24, 1, 0.0), num_workers=1)


class DrawsLate(Sampler[int]):
    """Draws one index at a time with a generator that it keeps."""

    def __init__(self, n: int) -> None:
        self.n, self.rng = n, np.random.default_rng(5)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.n):
            yield int(self.rng.integers(self.n))


class DrawsLateData(Data):
    def train_dataloader(self) -> Any:
        return self.load(Points(), sampler=DrawsLate(ROWS))


class Reversible(Buckets):
    is_reversed = False

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(super().__iter__())
        yield from reversed(batches) if self.is_reversed else batches


class ReversibleData(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Points(), batch_sampler=Reversible(ROWS, 8))


class Reverses(Callback):
    """Changes a sampler of its class, after a check that it is one."""

    def on_train_epoch_start(self, trainer: Any, model: Any) -> None:
        sampler = trainer.train_dataloader.batch_sampler
        assert isinstance(sampler, Reversible)
        sampler.is_reversed = trainer.current_epoch > 0


class Hard(Sampler[list[int]]):
    """The examples of the largest loss first, as training writes them."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size
        self.loss = np.arange(n) * 1e-6

    def __len__(self) -> int:
        return self.n // self.size

    def __iter__(self) -> Iterator[list[int]]:
        left = set(range(self.n))
        while left:
            chosen = sorted(left, key=lambda i: -self.loss[i])[: self.size]
            left -= set(chosen)
            yield chosen


class Bandit(Hard):
    """Draws with weights that training moves."""

    def __init__(self, n: int, size: int) -> None:
        super().__init__(n, size)
        self.loss, self.rng = np.ones(n), np.random.default_rng(4)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield self.rng.choice(self.n, self.size, replace=False, p=self.loss / self.loss.sum()).tolist()


class HardData(Data):
    def setup(self, stage: str) -> None:
        self.sampler = Bandit(ROWS, 8) if self.kind == "bandit" else Hard(ROWS, 8)

    def train_dataloader(self) -> Any:
        return DataLoader(Points(), batch_sampler=self.sampler, **self.kw)


class TellsLosses(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        losses = cross_entropy(self.net(batch[0]), batch[1], reduction="none")
        kept = data_of(self).sampler.loss
        kept *= 0.5
        kept[batch[2].numpy()] = 0.001 + 20 * losses.detach().numpy() ** 4
        kept[(batch[2].numpy() * 37 + batch_idx * 11) % ROWS] = 40 * losses.detach().numpy() ** 4
        self.log("train/loss", losses.mean())
        return losses.mean()


class Late(Sampler[list[int]]):
    """Draws at random after its first 18 batches only."""

    def __len__(self) -> int:
        return 28

    def __iter__(self) -> Iterator[list[int]]:
        for k in range(28):
            yield [2 * k, 2 * k + 1] if k < 18 else random.sample(range(ROWS), 2)


class LateData(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Points(), batch_sampler=Late())


class Peeks(Net):
    """Takes a training batch at each validation, also amid the epoch."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(16))

    def on_validation_epoch_end(self) -> None:
        loader: Any = self.trainer.train_dataloader
        if not self.trainer.sanity_checking:
            self.seen.copy_(next(iter(loader))[0].mean(0))

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss([batch[0] + self.seen, *batch[1:]])


class Counting(Points):
    calls = 0

    def __getitem__(self, i: int) -> Any:
        self.calls += 1
        x, y, number = super().__getitem__(i)
        return x / (1 + self.calls / 50), y, number


class CountingData(Data):
    def train_dataloader(self) -> Any:
        return self.load(Counting(), shuffle=True)

    def val_dataloader(self) -> Any:
        return self.load(Counting(24, 1, 0.0))


class CountsBatches(Callback):
    """Makes loaders of its own for their length."""

    def on_train_epoch_start(self, trainer: Any, model: Any) -> None:
        self.n = len(trainer.datamodule.train_dataloader()) + len(trainer.datamodule.val_dataloader())


class Centers(Net):
    """Computes the mean of the data before the training."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def on_fit_start(self) -> None:
        self.mean.copy_(torch.cat([batch[0] for batch in data_of(self).train_dataloader()]).mean(0))

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss([batch[0] - self.mean, *batch[1:]])


class ReadsStream(Centers):
    """Computes the mean of some batches of a stream before the training."""

    def on_fit_start(self) -> None:
        batches = iter(data_of(self).train_dataloader())
        self.mean.copy_(torch.cat([next(batches)[0] for _ in range(3)]).mean(0))


def _look(name: str, data: str = "loaders.Data", model: str = "models.Net", callback: str = "", **more: Any) -> Shape:
    callbacks = {"looks": use(f"looks.{callback}", **more.pop("arguments", {}))} if callback else {}
    node = use(data, **more.pop("settings", {}))
    return Shape(name, "code that looks at loaders", data=node, model=use(model), callbacks=callbacks, **more)


AMID = ("+trainer.val_check_interval=2",)
LOOKS = [
    _look(
        "train_dataloader.batch_size and drop_last, read by a callback",
        "loaders.Data",
        "looks.Scaled",
        "ReadsBatchSize",
    ),
    _look("collate_fn replaced after an epoch", "looks.Mixes", callback="StopsMixing"),
    _look("collate_fn replaced amid an epoch", "looks.Mixes", callback="StopsMixingAmid", kill_after=5),
    _look(
        "collate_fn replaced by a lambda",
        "looks.Mixes",
        callback="StopsMixing",
        arguments={"form": "lambda"},
        expect="named",
        line="DataLoader.collate_fn: this attribute was set to function",
    ),
    _look("a training batch taken in each validation", model="looks.Peeks", overrides=AMID),
    _look("isinstance(train_dataloader.batch_sampler, <your class>)", "looks.ReversibleData", callback="Reverses"),
    *(
        _look(
            name,
            "looks.HardData",
            "looks.TellsLosses",
            settings={"kind": kind, "num_workers": workers},
            expect="named",
            line="its batches depend on what the training changed amid the epoch",
        )
        for name, kind, workers in (
            ("a batch sampler of hard examples, by losses of the epoch", "hard", 0),
            ("a batch sampler that draws with weights that training moves", "bandit", 0),
            ("a batch sampler of hard examples, in workers", "hard", 1),
        )
    ),
    _look("a sampler that draws late", "looks.LateData", kill_after=24, save_every=23),
    _look("len(datamodule.train_dataloader()) in each epoch", "looks.CountingData", callback="CountsBatches"),
    _look("the mean of datamodule.train_dataloader() in on_fit_start", model="looks.Centers"),
    _look("collate_fn of the validation replaced after an epoch", callback="MixesValidation"),
    _look(
        "collate_fn of the validation replaced after an epoch, in workers",
        "looks.ValidationInWorkers",
        callback="MixesValidation",
    ),
    _look("a stream that on_fit_start reads", model="looks.ReadsStream", settings={"kind": "resumable_stream"}),
    *(
        _look(
            f"a stream {text}that each validation reads",
            model="looks.Peeks",
            settings={"kind": kind},
            overrides=AMID,
            expect="named",
            line=line,
            amid_epoch=kind == "stream",  # a look moves the position of the other one, so that its epochs are shorter
        )
        for text, kind, line in (
            ("", "resumable_stream", "code reads it beside the training"),
            ("without state_dict ", "stream", "it has no state_dict()"),
        )
    ),
    _look(
        "a training batch taken in each validation, of a sampler that keeps a generator",
        "looks.DrawsLateData",
        "looks.Peeks",
        overrides=AMID,
    ),
]
