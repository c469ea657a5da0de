"""Values: converted to types, merged by the order of their loaders, compared."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.store import FunctionLoader, Store
from fulgurite.store.values.convert import Problems, convert
from fulgurite.store.values.layers import Layer, is_same, leaves_of, merge


class Color(enum.Enum):
    RED = "r"
    BLUE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("12", int, 12),
        (" 12 ", int, 12),
        ("1e3", int, 1000),
        (1e3, int, 1000),
        (10**30, int, 10**30),
        ("1e-3", float, 0.001),
        (1, float, 1.0),
        ("inf", float, float("inf")),
        ("Off", bool, False),
        (1, bool, True),
        ("a", str, "a"),
        ("a/b", Path, Path("a/b")),
        (90, timedelta, timedelta(seconds=90)),
        ("1h30m", timedelta, timedelta(hours=1.5)),
        ("500ms", timedelta, timedelta(seconds=0.5)),
        ("00:12:00:00", timedelta, timedelta(hours=12)),
        ("2026-01-02", date, date(2026, 1, 2)),
        ("2026-01-02T03:04:05Z", datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("RED", Color, Color.RED),
        (2, Color, Color.BLUE),
        ("adam", Literal["adam", 1], "adam"),
        ("1", Literal["adam", 1], 1),
        (None, Optional[int], None),  # noqa: UP045
        ("3", int | None, 3),
        ("auto", int | str, "auto"),
        (True, int | bool, True),
        ((1, "2"), list[int], [1, 2]),
        ("a, b", tuple[str, ...], ("a", "b")),
        ("", list[str], []),
        ((1, "a"), tuple[int, str], (1, "a")),
        ((1,), Sequence[float], [1.0]),
        ({"a": "1"}, dict[str, int], {"a": 1}),
        ({"a": {"x": 1}}, dict[str, Point], {"a": Point(1)}),
        (({"x": 1},), list[Point], [Point(1)]),
        ({"a": (1, {"b": (2,)})}, dict, {"a": [1, {"b": [2]}]}),
        (5, Any, 5),
    ],
)
def test_a_value_is_converted_to_a_type(value: object, kind: Any, expected: object) -> None:
    problems: Problems = []
    found = convert(value, kind, "key", problems)
    assert problems == []
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ("abc", int, "is not a whole number"),
        (1.5, int, "is not a whole number"),
        (True, int, "is not a whole number"),
        ("", float, "is not a number"),
        ("nan", float, "is not a number"),
        (None, float, "is not a number"),
        (2, bool, "is not true or false"),
        (1.1, str, "is not text"),
        ("1h30", timedelta, "is not a duration such as 90s, 1h30m or 01:30:00"),
        (True, timedelta, "is not a duration such as 90s, 1h30m or 01:30:00"),
        ("2026-13-01", date, "is not a date"),
        ("GREEN", Color, "is not one of RED, BLUE"),
        ("sgd", Literal["adam", "lion"], "is not one of adam, lion"),
        ("x", int | None, "is not a whole number"),
        ("x", Union[int, float], "is not any of int, float"),  # noqa: UP007
        (3, list[int], "is not a list"),
        ((1, 2, 3), tuple[int, int], "does not have 2 items"),
        (3, dict[str, int], "is not a group of keys"),
        (3, Point, "is not a group of keys (Point)"),
        (3, type("Lock", (), {}), "is not Lock"),
    ],
)
def test_a_value_of_another_type_is_a_problem(value: object, kind: Any, problem: str) -> None:
    problems: Problems = []
    convert(value, kind, "key", problems)
    assert problems == [("key", value, problem)]


def test_a_problem_inside_of_a_list_or_a_group_has_its_place() -> None:
    store = Store(FunctionLoader({"points": [{"x": 1}, {"y": "z"}], "names": {"a": 1}}, "train.yaml"))
    store.getter("points", kind=list[Point])
    store.getter("names", kind=dict[str, str])
    with pytest.raises(ConfigError) as error:
        store.load()
    assert error.value.findings == [
        "points[1].x: is missing. Correct it in train.yaml.",
        "points[1].y=z: is not a whole number. Correct it in train.yaml.",
        "names.a=1: is not text. Correct it in train.yaml.",
    ]


def test_dotted_keys_and_nested_ones_are_one_thing() -> None:
    assert leaves_of({"a.b": 1, "a": {"c": [1, {"d": [2]}]}, 3: None, "empty": {}}, "x") == {
        "a.b": 1, "a.c": (1, {"d": (2,)}), "3": None,
    }  # fmt: skip


def too_deep() -> dict[str, Any]:
    """Return values in more levels than a config needs."""
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "the key a.b stands twice. Remove one of them"),
        ({"a": 1, "a.b": 2}, "a is a value and a group of keys. Remove one of them"),
        ({"a..b": 1}, "the key 'a..b' has an empty part. Name it"),
        ({"": 1}, "the key '' has an empty part. Name it"),
        (too_deep(), "is nested more than 100 levels deep. Use fewer levels"),
        ({"a": [[too_deep()]]}, "is nested more than 100 levels deep. Use fewer levels"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        leaves_of(values, "x.yaml")
    assert str(error.value) == f"x.yaml: {problem}."


def test_a_later_layer_replaces_values_by_groups_and_groups_by_values() -> None:
    layers = [
        Layer("low", {"a.b.c": 1, "a.d": 2, "e": 3, "ab": 4}),
        Layer("middle", {"a.b": 5, "e.f": 6}),
        Layer("high", {"e.g": 7}),
    ]
    leaves, origins = merge(layers)
    assert leaves == {"a.b": 5, "a.d": 2, "e.f": 6, "e.g": 7, "ab": 4}
    assert origins == {"a.b": "middle", "a.d": "low", "e.f": "middle", "e.g": "high", "ab": "low"}


def test_values_are_the_same_only_with_the_same_type() -> None:
    nan = float("nan")
    for value in (1, 1.0, True, nan, (1, (nan,)), {"a": 1}, None, "1"):
        assert is_same(value, value)
    for one, other in ((1, 1.0), (1, True), ((1,), (True,)), ({"a": 1}, {"a": 2}), ((1,), (1, 2)), ("1", 1)):
        assert not is_same(one, other)


def test_a_snapshot_lists_values_and_finds_groups() -> None:
    snapshot = Store(FunctionLoader({"a": {"b": {"c": 1}}, "d": 2})).load().snapshot()
    assert (list(snapshot), len(snapshot)) == (["a.b.c", "d"], 2)
    assert (snapshot["a"], snapshot["a.b"], snapshot["a.b.c"]) == ({"b": {"c": 1}}, {"c": 1}, 1)
    with pytest.raises(KeyError):
        snapshot["a.c"]
    assert "a.b.c.d" not in snapshot
