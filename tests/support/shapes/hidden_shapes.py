"""Shapes with state where one looks last, and of moments and settings of a kill."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

ATTRIBUTES = "state in attributes"
LOADERS = "samplers and loaders"


def _model(kind: str, text: str, **more: Any) -> Shape:
    return Shape(f"model: {text}", ATTRIBUTES, model=use("hidden.Hides", kind=kind), **more)


def _data(kind: str, text: str, group: str = LOADERS, *, workers: int = 0, **more: Any) -> Shape:
    return Shape(text, group, data=use("hidden.HiddenData", kind=kind, num_workers=workers), **more)


HIDDEN = [
    _model("submodule", "a temperature in a submodule"),
    _model("dataclass", "a dataclass"),
    _model("loss_object", "a loss that is no module"),
    _model("counter", "a collections.Counter", watch=["model.classes"]),
    _model("arrays", "a defaultdict of arrays", watch=["model.by_name"]),
    _model("legacy_numpy", "a NumPy RandomState", watch=["model.random_state"]),
    _model("iterator", "an iterator of another loader", expect="named", line="extra"),
    _model("class", "an attribute of the class"),
    _model("module", "a variable of the module"),
    _data("transform", "data set: a generator in a transform", ATTRIBUTES),
    _data("subset_of_transformed", "data set: a generator in the data set of a Subset", ATTRIBUTES),
    _data("counting", "data set: a counter, in workers", ATTRIBUTES, workers=2, expect="named", line="count"),
    _data("counts_epochs", "a sampler that counts its epochs"),
    _data("distributed", "DistributedSampler"),
    _data("batches", "batch_size=None, shuffle=True"),
    _data("buffered", "IterableDataset with a shuffle buffer", expect="named", line="Buffered"),
    _data(
        "endless",
        "an endless IterableDataset with limit_train_batches",
        overrides=["+trainer.limit_train_batches=7"],
        expect="named",
        line="Buffered",
    ),
]


def _moment(text: str, *overrides: str, **more: Any) -> Shape:
    return Shape(text, "moments and files", overrides=overrides, **more)


MOMENTS = [
    _moment("killed in the first epoch", kill_after=5),
    _moment("killed at the start of an epoch", kill_after=14, amid_epoch=False),
    _moment("killed before the last batch", kill_after=20),
    _moment("check_val_every_n_epoch=null", "trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=5"),
    _moment("logger=csv", "logger=csv"),
    _moment("model_checkpoint.save_top_k=2", "callbacks.model_checkpoint.save_top_k=2"),
    _moment("model_checkpoint.save_top_k=-1", "callbacks.model_checkpoint.save_top_k=-1"),
]
