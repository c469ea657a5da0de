"""What Python keeps beside attributes survives a checkpoint in place: iterators, streams, generators, views."""

from __future__ import annotations

import contextvars
import io
import itertools
import random
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from fulgurite.exact_resume.objects.walk import Known, Walk
from tests.fulgurite.exact_resume.test_objects import Process, resumed

CONTEXT: contextvars.ContextVar[int] = contextvars.ContextVar("test", default=0)


class Row(NamedTuple):
    x: torch.Tensor
    n: int


class Named(Row):
    """A class of a user that inherits from a named tuple."""


class Dice(random.Random):
    throws = 0


class Buffer(io.BytesIO):
    """A stream of a user's own class."""


class Target:
    n = 0


def numbers() -> Iterator[int]:
    yield from range(1000)


def forever() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def defaults(box: list[int] = [], counter: Any = itertools.count()) -> int:  # noqa: B006, B008 - as users write it
    box.append(next(counter))
    return len(box)


def reported(make: Callable[[], dict[str, Any]], change: Callable[[dict[str, Any]], object]) -> list[tuple[str, str]]:
    """Return what a save names after a change, and require that it names nothing before."""
    process = Process(make)
    process.save()
    assert process.reports == []
    change(process.values)
    process.save()
    return process.reports


def test_a_counter_continues_in_place() -> None:
    def make() -> dict[str, Any]:
        counter = itertools.count(3, 2)
        return {"a": counter, "b": [counter], "c": lambda: next(counter)}

    values = resumed(make, lambda values: [values["c"]() for _ in range(5)]).values
    assert values["a"] is values["b"][0]
    assert [next(values["a"]), values["c"]()] == [13, 15]


def test_a_counter_that_cannot_be_moved_is_made_anew() -> None:
    assert next(resumed(lambda: {"a": itertools.count(5)}, lambda v: v.update(a=itertools.count(1))).values["a"]) == 1


@pytest.mark.parametrize("kind", [io.BytesIO, io.StringIO])
def test_a_stream_in_memory_keeps_its_content_and_position(kind: Any) -> None:
    text: Any = b"abc" if kind is io.BytesIO else "abc"

    def change(values: dict[str, Any]) -> None:
        values["a"].write(text * 2)
        values["a"].seek(4)
        values["b"] = kind(text)

    values = resumed(lambda: {"a": kind(text * 9), "b": None}, change).values
    assert (values["a"].getvalue(), values["a"].tell(), values["b"].getvalue()) == (text * 9, 4, text)


def test_a_closed_stream_is_closed_after_a_resume() -> None:
    assert resumed(lambda: {"a": io.BytesIO(b"a")}, lambda values: values["a"].close()).values["a"].closed


def test_a_stream_of_another_class_is_named() -> None:
    assert reported(lambda: {"a": Buffer()}, lambda values: values["a"].write(b"a"))


def test_spawned_children_are_counted() -> None:
    def make() -> dict[str, Any]:
        bits = np.random.PCG64(4)
        return {"rng": np.random.default_rng(1), "seeds": np.random.SeedSequence(2), "bits": bits, "new": None}

    def change(values: dict[str, Any]) -> None:
        values["rng"].spawn(2)
        values["seeds"].spawn(3)
        values["bits"].random_raw()
        values["new"] = np.random.default_rng(7)
        values["new"].spawn(1)

    first, second = make(), resumed(make, change).values
    change(first)
    for name in ("rng", "new"):
        assert second[name].spawn(1)[0].random() == first[name].spawn(1)[0].random()
    assert second["seeds"].spawn(1)[0].state == first["seeds"].spawn(1)[0].state
    assert second["bits"].random_raw() == first["bits"].random_raw()


def test_a_subclass_of_random_keeps_its_state_and_its_attributes() -> None:
    def change(values: dict[str, Any]) -> None:
        values["a"].random()
        values["a"].throws = 2

    dice, first = resumed(lambda: {"a": Dice(1)}, change).values["a"], random.Random(1)
    first.random()
    assert (dice.throws, dice.random()) == (2, first.random())


@pytest.mark.parametrize("kind", [Row, Named])
def test_a_named_tuple_that_is_replaced_is_restored(kind: Any) -> None:
    make = lambda: {"a": kind(torch.ones(2), 0), "b": {"c": kind(torch.ones(2), 1)}, "d": None}  # noqa: E731

    def change(values: dict[str, Any]) -> None:
        values["a"] = kind(values["a"].x * 2, 3)
        values["b"]["c"] = kind(torch.zeros(2), 4)
        values["d"] = kind(torch.zeros(1), 5)

    values = resumed(make, change).values
    assert [type(values["a"]), values["a"].n, values["b"]["c"].n, values["d"].n] == [kind, 3, 4, 5]
    assert values["a"].x.tolist() == [2, 2]


def test_a_struct_sequence_of_torch_is_restored() -> None:
    found = torch.ones(2, 2).max(0)
    values = resumed(lambda: {"a": found}, lambda v: v.update(a=torch.eye(2).max(0))).values
    assert values["a"].indices.tolist() == [0, 1]


def test_what_a_thread_and_a_context_keep_is_restored() -> None:
    local = threading.local()
    local.n = 0

    def change(values: dict[str, Any]) -> None:
        values["local"].n += 4
        CONTEXT.set(7)

    first = Process(lambda: {"local": local, "context": CONTEXT})
    change(first.values)
    saved = first.save()
    local.n = 0
    CONTEXT.set(0)
    first.load(saved)
    assert (local.n, CONTEXT.get()) == (4, 7)


def test_what_a_weak_reference_leads_to_is_restored() -> None:
    target = Target()
    first = Process(lambda: {"a": weakref.ref(target)})
    target.n = 3
    saved, target.n = first.save(), 0
    first.load(saved)
    assert target.n == 3


def test_what_a_default_argument_keeps_is_restored() -> None:
    first = Process(lambda: {"a": defaults})
    assert [defaults(), defaults()] == [1, 2]
    saved = first.save()
    defaults()
    first.load(saved)
    assert defaults.__defaults__ == ([0, 1], defaults.__defaults__[1])  # type: ignore[index]
    assert repr(defaults.__defaults__[1]) == "count(2)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: itertools.cycle([1, 2, 3]),
        lambda: map(abs, itertools.count()),
        lambda: itertools.chain([1], [2, 3]),
        lambda: iter([1, 2, 3]),
        lambda: (number for number in range(9)),
        forever,
    ],
)
def test_an_iterator_is_named_once_it_moved_and_no_earlier(make: Callable[[], Iterator[int]]) -> None:
    def started() -> dict[str, Any]:
        iterator = make()
        next(iterator)
        return {"a": iterator, "unused": make()}

    assert [path for path, _ in reported(started, lambda values: next(values["a"]))] == ["a"]


def test_a_database_is_named_once_rows_changed_and_no_earlier() -> None:
    def make() -> dict[str, Any]:
        database = sqlite3.connect(":memory:")
        database.execute("create table rows(n integer)")
        database.execute("insert into rows values (1)")
        return {"a": database, "b": database.cursor()}

    def change(values: dict[str, Any]) -> None:
        values["a"].execute("insert into rows values (2)")

    database = sqlite3.connect(":memory:")
    assert Walk(Known()).visit(database, "a").form == "opaque"
    assert {path for path, _ in reported(make, change)} == {"a", "b"}


def _torch_view(base: Any) -> Any:
    return base[1:3]


@pytest.mark.parametrize("names", [("base", "view"), ("z", "a")])
@pytest.mark.parametrize(
    ("make", "view"),
    [
        (lambda: torch.zeros(4), _torch_view),
        (lambda: torch.zeros(4, 2), lambda base: base.t()[1]),
        (lambda: torch.zeros(1), lambda base: base.expand(3)),
        (lambda: np.zeros(4), _torch_view),
        (lambda: np.zeros((4, 2)), lambda base: base[::-1, 1]),
        (lambda: np.zeros(4, dtype=np.float32), torch.from_numpy),
        (lambda: torch.zeros(4), lambda base: base[2:].numpy()),
    ],
)
@pytest.mark.parametrize("is_base_new", [False, True])
def test_a_view_made_in_training_stays_a_view(names: Any, make: Any, view: Any, is_base_new: bool) -> None:
    base, other = names

    def change(values: dict[str, Any]) -> None:
        values[base] = make() if is_base_new else values[base]
        values[base][0] += 3
        values[base][-1] += 2
        values[other] = view(values[base])

    values = resumed(lambda: {base: None if is_base_new else make(), other: None}, change).values
    expected: dict[str, Any] = {base: make()}
    change(expected)
    for found in (values, expected):
        found[base][0] += 5
        found[base][-1] -= 2
    assert type(values[other]) is type(expected[other])
    assert values[other].tolist() == expected[other].tolist()
    assert values[base].tolist() == expected[base].tolist()


def test_a_view_of_what_others_save_stays_a_view() -> None:
    def make() -> dict[str, Any]:
        weight = torch.nn.Parameter(torch.zeros(4))
        return {"known": weight, "a": None, "holder": lambda: weight}

    process = Process(make)
    process.values["a"] = process.known.detach()[2:]
    saved, second = process.save(), Process(make)
    second.load(saved)
    with torch.no_grad():
        second.known.fill_(3)
    assert second.values["a"].tolist() == [3, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(2_000_000, dtype=np.float64),
        lambda: torch.arange(4_000_000).numpy(),
        lambda: list(range(200_000)),
        lambda: [torch.tensor([n]) for n in range(3000)],
    ],
)
@pytest.mark.parametrize("distance", [2, 1000, 4096])
def test_swapped_elements_of_what_is_large_are_found(make: Callable[[], Any], distance: int) -> None:
    values = make()
    first, distance = 101, min(distance, len(values) // 3)
    before, sampled = (Walk(Known(), thorough=each).visit(values, "a") for each in (True, False))
    assert sampled.sign == before.sign, "a save within an epoch compares samples"
    one, other = values[first], values[first + distance]
    values[first], values[first + distance] = (
        (other.copy(), one.copy()) if isinstance(values, np.ndarray) else (other, one)
    )
    assert Walk(Known()).visit(values, "a").sign != before.sign
