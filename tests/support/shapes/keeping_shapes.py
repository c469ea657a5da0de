"""Shapes of samplers, validation loaders and data sets that keep state or change their length."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

RESIZED = "data sets that change their length"


def _keeps(text: str, kind: str, *, workers: int = 0, used: int = 56, **more: Any) -> Shape:
    group = more.pop("group", "samplers and loaders")
    return Shape(text, group, data=use("keeping.KeepingData", kind=kind, num_workers=workers, used=used), **more)


def _resized(text: str, *, by: int = -12, kind: str = "resized", **more: Any) -> Shape:
    return _keeps(text, kind, group=RESIZED, callbacks={"resize": use("keeping.Resize", by=by)}, **more)


def _evaluates(text: str, kind: str, *overrides: str, workers: int = 0, **more: Any) -> Shape:
    data = use("keeping.EvaluatedData", kind=kind, num_workers=workers)
    return Shape(text, "metrics and validation", data=data, overrides=overrides, **more)


KEEPING = [
    _keeps("a batch sampler that shuffles its batches in place", "shuffled"),
    _keeps("the same, in workers", "shuffled", workers=2, row="a batch sampler that shuffles in place, with workers"),
    _keeps("a sampler of any class that shuffles in place", "indices"),
    _keeps("a sampler of samplers", "mixed"),
    _keeps("a sampler with weights that training changes", "mined", callbacks={"mine": use("keeping.Mine")}),
    _keeps("a batch sampler without __len__", "unsized"),
    _keeps("a batch sampler without __len__, before the last batch", "unsized", kill_after=20, save_every=2),
    _keeps("a batch sampler without __len__ over a data set that counts", "unsized_counted"),
    _keeps("a batch sampler without __len__, in workers", "unsized", workers=2),
    _resized("a data set that shrinks"),
    _resized("a data set that shrinks, saved at the end of an epoch", kill_after=14, save_every=13, amid_epoch=False),
    _resized("a data set that grows", by=12, used=24, kill_after=5, save_every=2),
    _resized(
        "a data set that shrinks, reload_dataloaders_every_n_epochs",
        overrides=["+trainer.reload_dataloaders_every_n_epochs=1"],
    ),
    _resized("a ConcatDataset whose part grows", by=12, kind="resized_concat", used=40, kill_after=10),
    _keeps(
        "a random part of the data for each epoch",
        "drawn",
        overrides=["+trainer.reload_dataloaders_every_n_epochs=1"],
        kill_after=8,
        save_every=2,
    ),
    _keeps(
        "a random part of the data for two epochs",
        "drawn",
        overrides=["+trainer.reload_dataloaders_every_n_epochs=2", "trainer.max_epochs=4"],
        kill_after=8,
        save_every=2,
    ),
    Shape(
        "train_dataloader set to a function that counts its calls",
        "samplers and loaders",
        data=use("keeping.AssignedData"),
        overrides=["+trainer.reload_dataloaders_every_n_epochs=1"],
    ),
    _evaluates("validation with RandomSampler(generator=g)", "generator"),
    _evaluates("validation with RandomSampler(generator=g), in workers", "generator", workers=1),
    _evaluates(
        "validation with two loaders with generators",
        "two",
        "callbacks.model_checkpoint.monitor=val/loss/dataloader_idx_1",
    ),
    _evaluates("validation data set: a counter", "counted"),
    _evaluates("validation with a batch sampler that shuffles in place", "sampler", "+trainer.limit_val_batches=2"),
    _evaluates(
        "validation sampler, check_val_every_n_epoch=2",
        "sampler",
        "+trainer.limit_val_batches=2",
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_epochs=4",
        kill_after=10,
    ),
]
