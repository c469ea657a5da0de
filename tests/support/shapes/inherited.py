"""State in objects of classes that inherit from numbers, arrays and tensors, and in code that is found late."""

from __future__ import annotations

import enum
import importlib
import multiprocessing
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

OBJECTS = "objects in attributes"


class Share(float):
    """A number with a name."""


class Signal(np.ndarray[Any, Any]):
    """An array of a class of its own."""


class Weights(torch.Tensor):
    """A tensor of a class of its own."""


class Phase(enum.Flag):
    WARM = 1
    AUGMENT = 2


class OnlyOne(type):
    """A class whose objects are made once."""

    made: dict[type, Any] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls not in OnlyOne.made:
            OnlyOne.made[cls] = type.__call__(cls, *args, **kwargs)
        return OnlyOne.made[cls]


class Bank(metaclass=OnlyOne):
    def __init__(self) -> None:
        self.value = 1.0


class Inherits(Net):
    """Multiplies the loss by a factor that changes with each step.

    Args:
        kind: What keeps the factor.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        make: dict[str, Callable[[], Any]] = {
            "masked": lambda: np.ma.masked_array(np.ones(3), [False, True, False]),
            "matrix": lambda: np.asmatrix(np.ones((2, 2))),
            "array": lambda: np.ones(3).view(Signal),
            "tensor": lambda: torch.ones(3).as_subclass(Weights),
            "number": lambda: Share(1.0),
            "csr": lambda: torch.eye(3).to_sparse_csr(),
            "set": lambda: set(range(40)),
            "flag": lambda: Phase.WARM,
            "late": lambda: None,
        }
        self.kept = make[kind]()

    def factor(self) -> float:
        step = self.global_step
        if self.kind in ("masked", "matrix", "array", "tensor"):
            self.kept *= 0.95
            return float(self.kept.sum()) / 3
        if self.kind == "number":
            self.kept = Share(self.kept * 0.95)
            return float(self.kept)
        if self.kind == "csr":
            self.kept.values().mul_(0.95)
            return float(self.kept.values().sum())
        if self.kind == "set":
            self.kept.add(1000 - 7 * step)
            return float(1 + next(iter(self.kept)) / 100 + [*self.kept][-1] / 1000)
        if self.kind == "late":
            self.kept = self.kept or SimpleNamespace(value=1.0)
            self.kept.value *= 0.95
            return float(self.kept.value)
        self.kept = Phase.WARM | Phase.AUGMENT if step % 2 else Phase(0)
        return float(1 + self.kept.value)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        weighted: torch.Tensor = self.loss(batch) * self.factor()
        return weighted


class Transposes(Net):
    """Sets a matrix to a transposed one: a product of a row with it differs in its last bits."""

    def __init__(self) -> None:
        super().__init__()
        self.q = torch.eye(256)
        self.base = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) / 16
        self.up, self.down = nn.Linear(16, 256), nn.Linear(256, 16)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            self.q = (self.base * 1.5).T
        return self.loss(batch)

    def loss(self, batch: Any) -> torch.Tensor:
        rows = torch.stack([row @ self.q for row in self.up(batch[0])])
        return super().loss([self.down(rows), *batch[1:]])


class Finds(Net):
    """Multiplies the loss by a number that other code keeps.

    Args:
        kind: How that code is found.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.kind == "relative":
            from . import late_counter

            count = late_counter.count()
        elif self.kind == "text":
            count = float(importlib.import_module("tests.support.shapes.late_counter").count())
        else:
            Bank().value *= 0.95
            count = Bank().value
        weighted: torch.Tensor = self.loss(batch) * count
        return weighted


def _wait() -> None:
    time.sleep(600)


class Environment(Net):
    """Keeps a process that runs beside the training."""

    def on_fit_start(self) -> None:
        self.worker = multiprocessing.get_context("fork").Process(target=_wait, daemon=True)
        self.worker.start()


class Lookahead(Optimizer):
    """Averages weights, and shares its groups and states with the optimizer that it wraps."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__([weight for group in inner.param_groups for weight in group["params"]], inner.defaults)
        self.inner = inner
        self.param_groups, self.state = inner.param_groups, inner.state

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


class UsesLookahead(Net):
    def configure_optimizers(self) -> Any:
        optimizer = Lookahead(SGD(self.parameters(), lr=0.5, momentum=0.9))
        return [optimizer], [{"scheduler": ExponentialLR(optimizer, 0.7), "interval": "step"}]


def _inherits(kind: str, text: str, **more: Any) -> Shape:
    return Shape(f"model: {text}", OBJECTS, model=use("inherited.Inherits", kind=kind), **more)


def _finds(kind: str, text: str, line: str) -> Shape:
    return Shape(text, OBJECTS, model=use("inherited.Finds", kind=kind), expect="named", line=line)


INHERITED = [
    _inherits("masked", "a masked array"),
    _inherits("matrix", "a NumPy matrix"),
    _inherits("array", "an array of a class of your own"),
    _inherits("tensor", "a tensor of a class of your own"),
    _inherits("number", "a number of a class of your own"),
    _inherits("csr", "a sparse tensor of layout CSR", expect="named", line="kept"),
    _inherits("set", "the order of a set of numbers that grows"),
    _inherits("flag", "several members of an enum.Flag"),
    _inherits("late", "a SimpleNamespace that training makes"),
    Shape("model: a matrix that is set to a transposed one", OBJECTS, model=use("inherited.Transposes")),
    _finds("metaclass", "model: an object that its metaclass keeps", "OnlyOne.made"),
    _finds("relative", "training_step that imports by a relative name", "late_counter.total"),
    _finds("text", "training_step that imports by a text", "late_counter.total"),
    Shape(
        "model: a process of its own",
        OBJECTS,
        model=use("inherited.Environment"),
        expect="named",
        line="is a process, whose state cannot be saved",
    ),
    Shape(
        "an optimizer that shares its groups and states with another",
        "optimization",
        model=use("inherited.UsesLookahead"),
    ),
]
