"""A checkpoint holds what weights_only=True reads, and a resume gets equal values of the same types."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fulgurite.checkpoints.plain import TYPES, from_plain, plain_hyperparameters, to_plain


class Level(IntEnum):
    """An enum whose members are numbers."""

    LOW = 1


class Mode(Enum):
    """An enum whose members are objects."""

    FAST = "fast"


def written(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as `torch.load(weights_only=True)` reads it from a file."""
    file = io.BytesIO()
    torch.save(to_plain(checkpoint).content, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


RESTORED: dict[str, Any] = {
    "numpy float": np.float32(0.1),
    "numpy int": np.int64(3),
    "numpy bool": np.bool_(True),
    "array": np.arange(6, dtype=">i2").reshape(2, 3),
    "array of no dimension": np.array(3.5),
    "array of text": np.array(["a", "bb"]),
    "array of dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "array of long doubles": np.arange(3, dtype=np.longdouble),
    "path": Path("a/b"),
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc),
    "date": date(2026, 1, 2),
    "time": time(1, 2, 3),
    "timedelta": timedelta(1, 2, 3),
    "deque": deque([1, 2], maxlen=3),
    "deque of paths": deque([Path("a")]),
    "frozenset": frozenset({1}),
    "set of paths": {Path("a")},
    "range": range(1, 9, 2),
    "defaultdict": defaultdict(list, a=[np.int64(1)]),
    "counter": Counter("aab"),
    "ordered": OrderedDict(a=np.int8(1)),
    "nested tuple": (1, (Path("a"), [np.float64(0.1)])),
    "dict with numpy keys": {np.int64(3): 1},
}


@pytest.mark.parametrize("name", RESTORED)
def test_a_value_is_restored_with_its_type(name: str) -> None:
    value = RESTORED[name]
    restored = from_plain(written({"callbacks": {"mine": value}}))
    found = restored["callbacks"]["mine"]
    assert type(found) is type(value)
    assert getattr(found, "dtype", None) == getattr(value, "dtype", None)
    assert repr(found) == repr(value) or found == value
    assert TYPES not in restored


def test_a_defaultdict_and_a_deque_work_on() -> None:
    made: dict[str, Any] = from_plain(written({"x": defaultdict(int, a=1), "y": deque([1, 2], maxlen=2)}))
    made["x"]["new"] += 1
    made["y"].append(3)
    assert (made["x"], list(made["y"])) == ({"a": 1, "new": 1}, [2, 3])


def test_generator_states_of_numpy_survive() -> None:
    for state in (np.random.RandomState(1).get_state(), np.random.default_rng(1).bit_generator.state):
        assert str(from_plain(written({"x": state}))["x"]) == str(state)


def test_plain_content_is_not_copied() -> None:
    state = OrderedDict(weight=torch.ones(2))
    checkpoint = {"state_dict": state, "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}]}
    content = to_plain(checkpoint).content
    assert all(content[key] is value for key, value in checkpoint.items())
    assert TYPES not in content


def test_a_number_of_an_enum_is_its_number() -> None:
    assert from_plain(written({"x": {Level.LOW: Level.LOW}})) == {"x": {1: 1}}


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"a": [1, object()]}, "mine.a.1"),
        ({"a": torch.nn.Linear(1, 1)}, "mine.a"),
        ({"a": Mode.FAST}, "mine.a"),
        ({"a": defaultdict(lambda: 1)}, "mine.a"),
        ({"a": torch.Generator()}, "mine.a"),
        ({"a": torch.nn.ReLU}, "mine.a"),
        ({"a": np.array([object()])}, "mine.a"),
    ],
)
def test_an_object_is_left_out_and_its_key_named(value: Any, key: str) -> None:
    plain = to_plain({"mine": value, "other": 1})
    assert list(plain.rejected) == [key]
    assert plain.content["other"] == 1


def test_a_list_that_holds_itself_is_rejected() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert to_plain({"mine": endless}).rejected


def test_hyperparameters_that_are_objects_are_left_out() -> None:
    make: Callable[..., Any] = partial(torch.optim.Adam, lr=0.1)
    parameters = {
        "net": torch.nn.Linear(1, 1),
        "metrics": [torch.nn.ReLU()],
        "mode": Mode.FAST,
        "optimizer": make,
        "wrapped": partial(make, params=torch.nn.Linear(1, 1)),
        "config": OmegaConf.create({"width": 3, "twice": "${.width}"}),
        "folder": Path("a"),
        "width": 3,
    }
    plain, left_out = plain_hyperparameters(parameters)
    assert left_out == {"net": "Linear", "metrics": "list", "mode": "Mode", "wrapped": "partial"}
    assert plain == {
        "optimizer": {"_target_": "torch.optim.adam.Adam", "_partial_": True, "lr": 0.1},
        "config": {"width": 3, "twice": 3},
        "folder": "a",
        "width": 3,
    }
    config = OmegaConf.create({"width": 3})
    saved = written(
        {"hyper_parameters": config, "hparams_type": type(config), "datamodule_hyper_parameters": parameters}
    )
    assert saved == {"hyper_parameters": {"width": 3}, "datamodule_hyper_parameters": plain}
