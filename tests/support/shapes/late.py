"""Objects, modules and code that come into use while a run trains."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import nn

from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

OBJECTS = "objects in attributes"


class Mixes(Net):
    """Makes an object of a class that it finds by its name in the first batch.

    Args:
        name: The class.
        at_start: Whether it makes the object in `on_train_start` instead.
    """

    def __init__(self, name: str, at_start: bool = False) -> None:
        super().__init__()
        self.name = name
        self.at_start = at_start
        self.mixer: Any = None

    def on_train_start(self) -> None:
        if self.at_start:
            self.make()

    def make(self) -> None:
        self.mixer = getattr(importlib.import_module("tests.support.shapes.late_helper"), self.name)()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.mixer is None:
            self.make()
        weighted: torch.Tensor = self.loss(batch) * self.mixer.factor()
        return weighted


class Grows(Net):
    """Gets other layers after the first epoch.

    Args:
        kind: What changes.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.head: nn.Module = nn.Linear(2, 2)
        self.blocks = nn.ModuleList([nn.Linear(2, 2)])

    def loss(self, batch: Any) -> torch.Tensor:
        out = self.head(self.net(batch[0]))
        for block in self.blocks:
            out = block(out)
        loss: torch.Tensor = nn.functional.cross_entropy(out, batch[1])
        return loss

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0 and self.kind == "sequential":
            self.head = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        if self.current_epoch == 0 and self.kind == "list":
            self.blocks.append(nn.Linear(2, 2))
        if self.current_epoch == 0 and self.kind == "removed":
            self.blocks = nn.ModuleList()


class KeepsArray(Net):
    """Weights its loss by an array of Python objects."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.table = np.empty(12_000, dtype=object)
        for number in range(len(self.table)):
            self.table[number] = {"weights": [1.0] * 3} if kind == "dicts" else (1.0, number)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        place = -1 - batch_idx
        if self.kind == "dicts":
            self.table[place]["weights"][1] *= 0.8
            weight = self.table[place]["weights"][1]
        else:
            self.table[place] = (self.table[place][0] * 0.8, batch_idx)
            weight = self.table[place][0]
        weighted: torch.Tensor = self.loss(batch) * weight
        return weighted


class Compiled(Net):
    """Trains through a compiled copy of its network in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = torch.compile(self.net, backend="eager")

    def loss(self, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = nn.functional.cross_entropy(self.compiled(batch[0]), batch[1])
        return loss


class AddsMetric(Net):
    """Adds a metric late, and weights its loss by it.

    Args:
        hook: Where it is added.
    """

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook
        self.mean: torchmetrics.MeanMetric | None = None

    def on_fit_start(self) -> None:
        if self.hook == "on_fit_start":
            self.mean = torchmetrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.mean is None:
            self.mean = torchmetrics.MeanMetric()
        loss = self.loss(batch)
        self.mean.update(loss.detach())
        weighted: torch.Tensor = loss * (1 + self.mean.compute())
        return weighted


def _late(text: str, kind: str, *, at_start: bool = False, **more: Any) -> Shape:
    return Shape(text, OBJECTS, model=use("late.Mixes", name=kind, at_start=at_start), **more)


def _grows(text: str, kind: str, **more: Any) -> Shape:
    return Shape(f"on_train_epoch_end that {text}", OBJECTS, model=use("late.Grows", kind=kind), **more)


def _array(kind: str) -> Shape:
    model = use("late.KeepsArray", kind=kind)
    return Shape(f"model: a NumPy array of {kind}", OBJECTS, model=model, expect="named", line="table")


LATE = [
    _late(
        "model: an object of a class that training_step imports",
        "Mixer",
        expect="named",
        line="a class that is not imported when the run resumes",
    ),
    _late("model: such an object that counts in its class", "SharedMixer", expect="named", line="SharedMixer.calls"),
    _late("model: such an object that draws in its module", "GlobalMixer", expect="named", line="late_helper.RNG"),
    _late("on_train_start that imports a class that counts in itself", "SharedMixer", at_start=True),
    _late("on_train_start that imports a class that draws in its module", "GlobalMixer", at_start=True),
    _grows("replaces a layer by several", "sequential", expect="refused", line="head"),
    _grows("appends a layer to a ModuleList", "list", expect="refused", line="blocks.1"),
    _grows("removes the layers of a ModuleList", "removed", expect="refused", line="blocks.0"),
    _array("dicts"),
    _array("tuples"),
    Shape("model: torch.compile in an attribute", OBJECTS, model=use("late.Compiled")),
    Shape("on_fit_start that adds a metric", OBJECTS, model=use("late.AddsMetric", hook="on_fit_start")),
    Shape(
        "training_step that adds a metric",
        OBJECTS,
        model=use("late.AddsMetric", hook="training_step"),
        expect="named",
        line="mean",
    ),
]
