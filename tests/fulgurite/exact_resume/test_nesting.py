"""Values that contain each other, or one value many times, are walked over once, and resume as they were."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from fulgurite.exact_resume.inspection.nesting import bulk_sign
from fulgurite.exact_resume.objects.walk import MAX_DEPTH, Known, Walk, fingerprint, scan
from fulgurite.exact_resume.used_code import reachable
from fulgurite.exact_resume.used_code.reachable import reach
from tests.fulgurite.exact_resume.test_inner_state import Model, Stop
from tests.fulgurite.exact_resume.test_objects import Process, resumed
from tests.support.quiet_trainer import MadeData, fit_hardened
from tests.support.shapes.loaders import Points

LEVELS = 18  # the tuple of the last one stands for 260,000


def mutual(leaf: Any, times: int = 1, size: int = 0) -> Any:
    """Return a list that holds another list that holds it."""
    one: list[Any] = [leaf] * size
    other = [leaf] * size + [one] * times
    one += [other] * times
    return one


def mutual_dicts(leaf: Any) -> Any:
    """Return a dictionary that holds another one that holds it."""
    one: dict[Any, Any] = {"leaf": leaf}
    one.update({name: {"back": one, "again": one} for name in "ab"})
    return one


def doubled(leaf: Any, kind: Any = tuple) -> Any:
    """Return a pair of one pair of one pair, and so forth."""
    value: Any = kind([leaf])
    for _ in range(LEVELS):
        value = kind([value, value])
    return value


def mixed(leaf: Any) -> Any:
    """Return a frozenset of one frozenset, at two places each."""
    value: Any = frozenset([leaf])
    for number in range(LEVELS):
        value = frozenset([value, (value, number)])
    return value


MAKE: dict[str, Callable[[Any], Any]] = {
    "lists": mutual,
    "lists, twice": lambda leaf: mutual(leaf, times=2),
    "large lists": lambda leaf: mutual(leaf, times=2, size=1001),
    "dictionaries": mutual_dicts,
    "tuples": doubled,
    "doubled lists": lambda leaf: doubled(leaf, list),
    "frozensets": mixed,
}
TABLE = doubled(torch.zeros(1))
NAMES = mutual("name", times=2)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("is_plain", [True, False])
def test_what_contains_each_other_is_visited_a_few_times(name: str, is_plain: bool) -> None:
    value = MAKE[name](1 if is_plain else torch.zeros(1))
    sizes, dumps = [0], marshal.dumps

    def measured(held: Any, version: int) -> bytes:
        sizes.append(len(written := dumps(held, version)))
        return written

    with patch("marshal.dumps", measured):
        assert sum(1 for _ in islice(scan(Walk(Known()), value, "a"), 1000)) < 1000
        num_reached = len(reach(value, {"a": value}))
    assert num_reached < 2
    assert max(sizes) < 2**19


def test_a_value_at_many_places_is_hashed_as_a_whole_where_it_is_small() -> None:
    row = (1, 2)
    assert bulk_sign([row] * 50_000) == bulk_sign([(1, 2)] * 50_000) is not None
    assert bulk_sign([1, torch.zeros(1)]) is None


def test_a_change_in_large_lists_that_hold_each_other_is_found() -> None:
    value = mutual("a", size=1001)
    before = fingerprint(value, Known())
    value[-1][2] = "b"
    assert fingerprint(value, Known()) != before


def test_a_chain_is_walked_to_a_depth_that_a_save_does_not_reach() -> None:
    def make() -> dict[str, Any]:
        chain: list[Any] = []
        for _ in range(5 * MAX_DEPTH):
            chain = [chain]
        return {"a": chain}

    assert len(list(islice(scan(Walk(Known()), make()["a"], "a"), 2 * MAX_DEPTH))) == MAX_DEPTH + 1
    process = Process(make)
    process.save()
    assert [reason for _, reason in process.reports] == ["is nested too deeply to be saved"]


@pytest.mark.parametrize("name", ["lists", "tuples", "dictionaries"])
def test_what_contains_each_other_is_restored_in_place(name: str) -> None:
    def leaf_of(value: Any) -> Any:
        while not isinstance(value, torch.Tensor):
            value = value["leaf"] if isinstance(value, dict) else value[0]
        return value

    make: Callable[[Any], Any] = partial(mutual, size=1) if name == "lists" else MAKE[name]
    value = resumed(lambda: {"a": make(torch.zeros(1))}, lambda values: leaf_of(values["a"]).add_(3)).values["a"]
    assert leaf_of(value).item() == 3
    if name == "tuples":
        assert value[0] is value[1]
        value = resumed(lambda: {"a": None}, lambda values: values.update(a=doubled(torch.ones(1)))).values["a"]
        assert value[0] is value[1]
        assert value[0][0] is value[0][1]
        assert leaf_of(value).item() == 1


class Graphs(Model):
    """Reads values that contain each other, of its module, its own, and of a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs, self.others, held = doubled(torch.zeros(1)), mutual(1, times=2), doubled([1.0])

        def factor() -> float:
            return 1.0 if held else 0.0

        self.factor = factor

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        assert TABLE, NAMES
        return super().training_step(batch, batch_idx) * self.factor()


class Holds(Callback):
    """Holds values that contain each other, and more of them in each epoch."""

    def __init__(self) -> None:
        self.graph: Any = mutual_dicts(1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a new value."""
        self.graph = doubled(mutual_dicts(trainer.current_epoch))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_run_that_holds_them_everywhere_saves_and_resumes(tmp_path: Path) -> None:
    visits, visit = [0], Walk.visit

    def counted(self: Walk, *args: Any, **kwargs: Any) -> Any:
        visits[0] += 1
        assert visits[0] < 200_000, "the walk does not end"
        return visit(self, *args, **kwargs)

    def fit(*more: Callback) -> None:
        data = MadeData(lambda: DataLoader(Points(), 8, shuffle=True))
        data.graph = doubled(torch.zeros(1))  # type: ignore[attr-defined]
        last, ends = tmp_path / "last.ckpt", LastCheckpoint(tmp_path, every_n_train_steps=6)
        settings: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 0}
        settings["ckpt_path"] = last if last.exists() else None
        callbacks = [Holds(), *more, ends]
        fit_hardened(Graphs(), data, tmp_path, callbacks, switches={"supervise_ranks": False}, **settings)

    current_context().inexact.clear()
    with patch.object(Walk, "visit", counted):
        with pytest.raises(SystemExit):
            fit(Stop())
        fit()
    assert current_context().inexact == []


def test_each_hook_of_a_module_is_reached() -> None:
    def make(number: int) -> Any:
        return lambda *args: number

    model = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2)) for _ in range(50)))
    hooks = [make(number) for number in range(101)]
    for module, hook in zip(model.modules(), hooks, strict=True):
        module.register_forward_hook(hook)
    found = set(map(id, reach(model)))
    assert sum(id(hook) in found for hook in hooks) == len(hooks)


class Node:
    """One of a chain."""

    def __init__(self, following: Node | None) -> None:
        self.following, self.count = following, 0


def test_a_change_that_is_too_deep_for_a_checkpoint_is_named_and_one_above_is_saved() -> None:
    def make() -> dict[str, Any]:
        chain = None
        for _ in range(60):
            chain = Node(chain)
        return {"a": chain, "b": doubled([0])}

    def node(values: dict[str, Any], number: int) -> Any:
        found = values["a"]
        for _ in range(number):
            found = found.following
        return found

    process = Process(make)
    process.save()
    node(process.values, 20).count = 1
    saved = process.save()
    assert process.reports == []
    second = Process(make)
    second.load(saved)
    assert node(second.values, 20).count == 1
    node(process.values, 50).count = 1
    process.save()
    assert set(process.reports) == {("a", "is nested too deeply to be saved")}


@pytest.mark.parametrize("item", [{"a": [1]}, ([1],), [[1]]], ids=["a dict", "a tuple", "a list"])
@pytest.mark.parametrize("num_items", [1, 20_000])
def test_a_change_within_an_array_of_objects_is_found(item: Any, num_items: int) -> None:
    table = np.empty(num_items, dtype=object)
    table[-1] = item
    for holder in (table, [table], {"x": (table,)}):
        before = fingerprint(holder, Known())
        inner = item["a"] if isinstance(item, dict) else item[0]
        inner.append(2)
        assert fingerprint(holder, Known()) != before


def test_an_array_that_holds_itself_has_an_end() -> None:
    table = np.empty(3, dtype=object)
    table[0] = [table]
    assert fingerprint(table, Known()) == fingerprint(table, Known())


def test_a_search_that_ends_early_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_context(), "inexact", lines := list[str]())
    monkeypatch.setattr(reachable, "MAX_OBJECTS", 20)
    for _ in range(2):
        reach([Example() for _ in range(10)])
    assert lines == []
    for _ in range(2):
        reach([Example() for _ in range(30)])
    assert len(lines) == 1
    assert lines[0].startswith("Example: the run has more than 20 objects")


def test_many_examples_of_one_class_end_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_context(), "inexact", lines := list[str]())
    generator = torch.Generator()
    assert generator in reach([*[Example() for _ in range(30_000)], generator])
    assert lines == []


class Example:
    """One of many."""

    def __init__(self) -> None:
        self.label = 1
