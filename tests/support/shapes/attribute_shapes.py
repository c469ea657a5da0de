"""Shapes with state in plain attributes."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

ATTRIBUTES = "state in attributes"


def _keeps(kind: str, text: str, watch: str, **more: Any) -> Shape:
    shown = {} if more.get("expect") == "named" else {"watch": [f"model.{watch}"]}
    return Shape(f"model: {text}", ATTRIBUTES, model=use("attributes.Keeps", kind=kind), **{**shown, **more})


def _noisy(kind: str, text: str, workers: int = 0, *, persistent: bool = False, **more: Any) -> Shape:
    data = use("attributes.NoisyData", kind=kind, num_workers=workers, persistent=persistent)
    return Shape(f"data set: {text}", ATTRIBUTES, data=data, **more)


STATES = [
    _keeps("list", "a list of losses", "losses"),
    _keeps("tensors", "a list of tensors", "losses"),
    _keeps("float", "a temperature", "temperature"),
    _keeps("count", "a counter", "count"),
    _keeps("tensor", "a tensor that is no buffer", "center"),
    _keeps("numpy", "a NumPy generator", "rng"),
    _keeps("torch", "a torch generator", "torch_rng"),
    _keeps("python", "a random.Random", "python_rng"),
    _keeps("deque", "a deque", "recent"),
    _keeps("dict", "a dict of tensors", "by_class"),
    _keeps("set", "a set", "seen"),
    _keeps("own_class", "an object of your own class", "bank.rows"),
    _keeps("too_large", "a tensor of 12 MB that is no buffer", "", expect="named", line="large"),
    Shape("model: outputs of the epoch in a list", ATTRIBUTES, model=use("attributes.EpochLosses")),
    _noisy("numpy", "a NumPy generator"),
    _noisy("torch", "a torch generator"),
    _noisy("python", "a random.Random"),
    _noisy("numpy", "a NumPy generator, in workers", 2),
    _noisy("torch", "a torch generator, in persistent workers", 2, persistent=True),
    _noisy("cache", "a cache of changed examples"),
    _noisy("count", "a counter"),
    Shape(
        "data module: a NumPy generator and a counter",
        ATTRIBUTES,
        data=use("attributes.Mixup"),
        watch=["data.rng", "data.mixed"],
    ),
    Shape(
        "data module: another training set each epoch, of a counter",
        ATTRIBUTES,
        data=use("attributes.NewSetEachEpoch"),
        overrides=["+trainer.reload_dataloaders_every_n_epochs=1"],
    ),
    Shape(
        "callback: counters without state_dict",
        ATTRIBUTES,
        callbacks={"decay": use("attributes.Decay")},
        watch=["Decay.best", "Decay.waited"],
    ),
    Shape(
        "curriculum: dataset.level = current_epoch",
        ATTRIBUTES,
        data=use("attributes.NoisyData", kind="level"),
        callbacks={"level": use("attributes.Level")},
    ),
    Shape(
        "curriculum: dataset.level += 0.5",
        ATTRIBUTES,
        data=use("attributes.NoisyData", kind="level"),
        callbacks={"level": use("attributes.Level", add=True)},
    ),
    Shape(
        "curriculum: sampler.weights",
        ATTRIBUTES,
        data=use("loaders.Data", kind="weighted"),
        callbacks={"weights": use("attributes.Weights")},
    ),
]
