"""State that Python keeps for user code: functions, caches, the process, streams, iterators, enumerations."""

from __future__ import annotations

import contextvars
import functools
import io
import itertools
import os
import random
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from tests.support.shapes.loaders import Data, Points
from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

THREAD = threading.local()
CONTEXT: contextvars.ContextVar[int] = contextvars.ContextVar("calls", default=0)
NUMBERS = itertools.count(1)
TEACHER = nn.Linear(16, 2)
database: Any = None
anchor: Any = None
scale: Any = abs


def with_attribute() -> int:
    calls: int = getattr(with_attribute, "calls", 0) + 1
    vars(with_attribute)["calls"] = calls
    return calls


def with_default(seen: list[int] = []) -> int:  # noqa: B006 - as users write it
    seen.append(1)
    return len(seen)


def counted(function: Callable[[], int]) -> Callable[[], int]:
    calls = 0

    @functools.wraps(function)
    def call() -> int:
        nonlocal calls
        calls += 1
        return calls * function()

    return call


@counted
def decorated() -> int:
    return 1


@functools.lru_cache
def drawn_once(key: int) -> torch.Tensor:
    return torch.rand(2)


@functools.lru_cache
def computed_once(key: int) -> int:
    return key * key


def doubled(x: Any) -> Any:
    return 2 * x


class Mode(Enum):
    PLAIN = [0]

    def __init__(self, value: list[int]) -> None:
        self.calls = 0


class Row(NamedTuple):
    x: torch.Tensor
    n: int


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    n: int = 0


class Recent(OrderedDict[str, int]):
    """A cache that counts its hits."""

    hits = 0


class Dice(random.Random):
    """A generator of a user's own class."""

    throws = 0

    def throw(self) -> float:
        self.throws += 1
        return self.random() * self.throws


class Keeps(Net):
    """Scales its loss by what Python keeps."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.rng, self.seeds = np.random.default_rng(0), np.random.SeedSequence(1)
        self.bits = np.random.PCG64(2)
        self.dice = Dice(3)
        self.row, self.frozen = Row(torch.ones(2), 0), Frozen(torch.ones(2))
        self.stream, self.text = io.BytesIO(), io.StringIO()
        self.count = itertools.count()
        self.unused = (number for number in range(9))
        self.recent = Recent(a=1, b=2)
        self.array = torch.zeros(4)
        self.view: Any = None
        self.table: Any = None if kind != "swap" else np.arange(2_000_000, dtype=np.float64)

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss([batch[0].float(), *batch[1:]])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch) * (1 + 0.02 * getattr(self, f"_{self.kind}")(batch_idx))
        self.log("train/loss", loss)
        return loss

    def _attribute(self, i: int) -> Any:
        return with_attribute()

    def _default(self, i: int) -> Any:
        return with_default()

    def _decorated(self, i: int) -> Any:
        return decorated()

    def _drawn(self, i: int) -> Any:
        return drawn_once(i % 5)[0]

    def _computed(self, i: int) -> Any:
        return computed_once(i % 5)

    def _environment(self, i: int) -> Any:
        os.environ["SHAPE_LEVEL"] = str(int(os.environ.get("SHAPE_LEVEL", "0")) + 1)
        return int(os.environ["SHAPE_LEVEL"])

    def _settings(self, i: int) -> Any:
        if self.trainer.current_epoch == 1 and i == 0:
            torch.set_flush_denormal(True)
            np.seterr(over="raise")
            torch.backends.cudnn.benchmark = True
        raises = np.geterr()["over"] == "raise"
        return raises + torch.backends.cudnn.benchmark + float(torch.tensor([1e-40]).mul(1) == 0)

    def _default_dtype(self, i: int) -> Any:
        if self.trainer.current_epoch == 1:
            torch.set_default_dtype(torch.float64)
        return torch.rand(()).float()

    def _spawn(self, i: int) -> Any:
        children = [self.rng.spawn(1)[0], np.random.default_rng(self.seeds.spawn(1)[0])]
        return sum(child.random() for child in children) + self.bits.random_raw() % 100

    def _dice(self, i: int) -> Any:
        return self.dice.throw()

    def _tuples(self, i: int) -> Any:
        self.row = Row(self.row.x * 1.02, self.row.n + 1)
        self.frozen = replace(self.frozen, x=self.frozen.x * 1.02, n=self.frozen.n + 1)
        return self.row.x.sum() * self.row.n + self.frozen.x.sum() * self.frozen.n

    def _streams(self, i: int) -> Any:
        self.stream.write(b"1")
        self.text.write("1 ")
        return self.stream.tell() + len(self.text.getvalue().split())

    def _thread(self, i: int) -> Any:
        THREAD.calls = getattr(THREAD, "calls", 0) + 1
        return THREAD.calls

    def _database(self, i: int) -> Any:
        global database
        if database is None:
            database = sqlite3.connect(":memory:")
            database.execute("create table rows(i integer)")
        database.execute("insert into rows values (?)", (i,))
        return database.execute("select count(*) from rows").fetchone()[0]

    def _counts(self, i: int) -> Any:
        return next(self.count) + next(NUMBERS)

    def _context(self, i: int) -> Any:
        CONTEXT.set(CONTEXT.get() + 1)
        return CONTEXT.get()

    def _members(self, i: int) -> Any:
        Mode.PLAIN.calls += 1
        Mode.PLAIN.value[0] += 1
        return Mode.PLAIN.calls + Mode.PLAIN.value[0]

    def _objects(self, i: int) -> Any:
        global anchor
        anchor = Row(torch.full((2,), float(i)), i) if anchor is None else Row(anchor.x + 1, i)
        with torch.no_grad():
            TEACHER.weight.mul_(1.01)
        return anchor.x.sum() + TEACHER.weight.detach().norm()

    def _rebinds(self, i: int) -> Any:
        global scale
        if self.trainer.current_epoch == 1:
            scale = doubled
        return scale(1)

    def _subclass(self, i: int) -> Any:
        self.recent.hits += 1
        self.recent.move_to_end(next(iter(self.recent)))
        return self.recent.hits + next(iter(self.recent.values()))

    def _view(self, i: int) -> Any:
        if self.view is None:
            self.view = self.array[1:3]
        self.view.add_(1)
        return self.array.sum()

    def _swap(self, i: int) -> Any:
        first = 2 * self.trainer.global_step + 1  # between the samples that each save reads
        self.table[[first, first + 1000]] = self.table[[first + 1000, first]]
        return float((self.table[:200] != np.arange(200)).mean())


class Seen(Points):
    """Keeps the examples it gave in a default argument."""

    def __getitem__(self, i: int, seen: list[int] = []) -> Any:  # noqa: B006 - as users write it
        seen.append(i)
        return self.x[i] * (1 + len(seen) / 100), self.y[i], i


class SeenData(Data):
    def train_dataloader(self) -> Any:
        return self.load(Seen(noise=0.0), shuffle=True)


class Exits(Callback):
    """Ends the process as a C library or an `os._exit` of user code does."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            os._exit(self.code)


def _keeps(kind: str, text: str, line: str = "", *watch: str) -> Shape:
    model, expect = use("python_state.Keeps", kind=kind), "named" if line else "equal"
    return Shape(f"model: {text}", "Python's state", model=model, expect=expect, line=line, watch=watch)  # type: ignore[arg-type]


PYTHON_STATE = [
    _keeps("attribute", "an attribute of a function"),
    _keeps("default", "a default argument that is a list"),
    _keeps("decorated", "a decorator that counts in nonlocal"),
    _keeps("drawn", "functools.lru_cache of random numbers", "drawn_once"),
    _keeps("computed", "functools.lru_cache of a computation"),
    _keeps("environment", "an environment variable"),
    _keeps("settings", "np.seterr, torch.set_flush_denormal, torch.backends"),
    _keeps("default_dtype", "torch.set_default_dtype", "torch.set_default_dtype"),
    _keeps("spawn", "Generator.spawn, SeedSequence.spawn, a bit generator"),
    _keeps("dice", "a subclass of random.Random"),
    _keeps("tuples", "a NamedTuple and a frozen dataclass, made anew each step"),
    _keeps("streams", "io.BytesIO and io.StringIO", "", "model.stream", "model.text"),
    _keeps("thread", "a threading.local"),
    _keeps("database", "a sqlite3 database in memory", "database"),
    _keeps("counts", "itertools.count"),
    _keeps("context", "a ContextVar"),
    _keeps("members", "members of an enumeration that change"),
    _keeps("objects", "a module and a NamedTuple in variables of the module"),
    _keeps("rebinds", "a variable of the module that becomes another function", "scale"),
    _keeps("subclass", "a subclass of OrderedDict"),
    _keeps("view", "a view that training makes"),
    _keeps("swap", "swapped elements in an array of 16 MB", "table"),
    Shape("data set: a default argument that is a list", "Python's state", data=use("python_state.SeenData")),
    Shape(
        "data set: a default argument that is a list, in workers",
        "Python's state",
        data=use("python_state.SeenData", num_workers=1),
        expect="named",
        line="Seen.__getitem__",
    ),
]
