"""What objects hold survives a checkpoint: in its type, in place, shared where it was shared."""

from __future__ import annotations

import io
import multiprocessing
import random
import sys
import warnings
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.core.context import current_context
from fulgurite.exact_resume.inspection.read_only import read_only_sign
from fulgurite.exact_resume.objects.encoding import KEPT, Encoder
from fulgurite.exact_resume.objects.restoring import Restorer
from fulgurite.exact_resume.objects.signs import NUM_SAMPLED, _bytes_of, leaf_sign
from fulgurite.exact_resume.objects.walk import Known, Walk, fingerprint, scan
from fulgurite.exact_resume.values.leaves import leaf_to_plain


class Color(Enum):
    RED = 1
    BLUE = 2


class Step(NamedTuple):
    reward: float
    done: bool


@dataclass
class Average:
    """A user's own class."""

    mean: float = 0.0
    rows: list[Any] = field(default_factory=list)


class Slots:
    """A class without a dict."""

    __slots__ = ("count", "unset")

    def __init__(self) -> None:
        self.count = 0


class Bank(list[Any]):
    """A list of a user's own class."""

    size = 0


class Hooks:
    """A class with a dict that is none of torch."""

    def __init__(self) -> None:
        self.my_hooks = {"a": 0}


class Needs:
    """A class that makes its own objects."""

    def __new__(cls) -> Needs:
        return super().__new__(cls)


class Process:
    """What one process holds: the values at its start, and what is saved and restored."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self.values = make()
        self.known = self.values.pop("known", None)
        self.start: dict[str, Any] = {}
        self.existing: dict[str, Any] = {}
        self.changed: set[str] = set()
        self.reports: list[tuple[str, str]] = []
        walk = self._walk()
        for name, value in self.values.items():
            for path, _, node in scan(walk, value, name):
                self.start[path] = self.existing[path] = node.sign

    def _walk(self) -> Walk:
        return Walk(Known([] if self.known is None else [(self.known, "known")]))

    def save(self) -> dict[str, Any]:
        """Return what a checkpoint has of the values, read as checkpoints are."""
        report = lambda path, reason: self.reports.append((path, reason))  # noqa: E731
        encoder = Encoder(self._walk(), self.start, self.existing, self.changed, report)
        plain = {name: encoder.encode_part(value, name)[0] for name, value in sorted(self.values.items())}
        with io.BytesIO() as file:
            torch.save(plain, file)
            file.seek(0)
            saved: dict[str, Any] = torch.load(file, weights_only=True)
        return saved

    def load(self, saved: dict[str, Any]) -> None:
        """Restore what another process saved."""
        walk, objects = self._walk(), dict[str, Any]()
        for name, value in sorted(self.values.items()):
            objects |= {path: found for path, found, _ in scan(walk, value, name)}
        restorer = Restorer(walk, objects, torch.device("cpu"), self.changed)
        for name, plain in saved.items():
            self.values[name] = restorer.restore(plain, self.values.get(name), name)


def resumed(make: Callable[[], dict[str, Any]], change: Callable[[dict[str, Any]], object]) -> Process:
    """Return a process that resumed what another one had changed; each change is found, and nothing is reported."""
    first = Process(make)
    assert all(plain == KEPT or not isinstance(plain, list) for plain in first.save().values())
    change(first.values)
    saved = first.save()
    assert not first.reports
    second = Process(make)
    second.load(saved)
    assert _hashes(second) == _hashes(first)
    assert str(second.save()) == str(saved), "a resumed run saves what the other one did"
    return second


def _hashes(process: Process) -> dict[str, int]:
    return {name: fingerprint(value, Known()) for name, value in process.values.items()}


VALUES: list[Any] = [
    np.random.default_rng(3),
    np.random.Generator(np.random.MT19937(3)),
    np.random.RandomState(1),
    torch.Generator().manual_seed(1),
    random.Random(2),
    [1, (2.5, None), {"x": {1, 2}}],
    deque([1.0], 3),
    defaultdict(list, {1: [2]}),
    Counter("aab"),
    OrderedDict(a=1),
    frozenset([1]),
    np.arange(3.0),
    np.array(["2020-01-01"], dtype="M8[D]"),
    np.float32(2),
    torch.ones(2)[0],
    torch.zeros(2, requires_grad=True),
    nn.Parameter(torch.ones(2)),
    torch.eye(2).to_sparse(),
    torch.ones(2, dtype=torch.bfloat16),
    torch.float16,
    torch.device("cpu"),
    array("d", [1.0, 2.0]),
    bytearray(b"ab"),
    Path("a/b"),
    datetime(2020, 1, 2, tzinfo=timezone.utc),
    timedelta(days=1, microseconds=3),
    Color.BLUE,
    Step(1.0, True),
    [Step(1.0, False), Average(2.0, [torch.ones(1)])],
    Average(3.0, [Average(1.0)]),
    {(1, "a"): torch.ones(1), Color.RED: 2},
    {torch.float16},
    b"12",
    2**90,
    list(range(20_000)),
    [torch.full((1,), float(number)) for number in range(1500)],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_new_value_survives_a_checkpoint_in_its_type(value: Any) -> None:
    restored = resumed(lambda: {"a": None}, lambda values: values.update(a=value)).values["a"]
    assert type(restored) is type(value)
    assert getattr(restored, "requires_grad", None) == getattr(value, "requires_grad", None)


def _step(values: dict[str, Any]) -> None:
    loss = values["net"](torch.ones(1, 2)).sum()
    loss.backward()
    values["optimizer"].step()
    values["schedule"].step()


def _with_optimizer() -> dict[str, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.eval()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    return {"net": net, "optimizer": optimizer, "schedule": schedule}


def _closure() -> Callable[[], int]:
    seen, count = [0], 0

    def call() -> int:
        nonlocal count
        count += 1
        seen[0] += 2
        return count + seen[0]

    return call


def _counted() -> Callable[[], int]:
    function: Any = _closure()
    function.calls = 0
    return function  # type: ignore[no-any-return]


def _hooked() -> nn.Module:
    net, means = nn.Linear(2, 2), {"mean": 0.0}
    net.weight.data.fill_(1.0)
    net.bias.data.zero_()

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        means["mean"] += float(output.detach().mean())

    net.register_forward_hook(hook)
    return net


def _loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(9.0)), shuffle=True, generator=torch.Generator().manual_seed(2))


def _file(size: int) -> np.memmap[Any, Any]:
    with NamedTemporaryFile() as file:
        return np.memmap(file.name, dtype="f8", mode="w+", shape=(size,))


def _enlarge(bank: Bank) -> None:
    bank.append(torch.ones(1))
    bank.size = 1


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "slots": (Slots, lambda v: setattr(v, "count", 3)),
    "an attribute of an object": (Average, lambda v: v.rows.append(1)),
    "a subclass of list": (Bank, _enlarge),
    "a class with __new__": (Needs, lambda v: setattr(v, "count", 1)),
    "a shared number": (lambda: multiprocessing.Value("i", 0), lambda v: setattr(v, "value", 2)),
    "a shared array": (lambda: multiprocessing.Array("d", 3), lambda v: v.__setitem__(1, 2.0)),
    "a file": (lambda: _file(3), lambda v: v.__setitem__(1, 2.0)),
    "a module in a list": (lambda: [_hooked().requires_grad_(False)], lambda v: v[0].weight.add_(1.0)),
    "a closure": (_closure, lambda v: v()),
    "an attribute of a function": (_counted, lambda v: setattr(v, "calls", 1)),
    "an attribute of a partial": (lambda: partial(print, 1), lambda v: setattr(v, "calls", 1)),
    "numbers in an attribute named hooks": (Hooks, lambda v: v.my_hooks.update(a=1)),
    "the list of a partial": (lambda: partial(print, [0]), lambda v: v.args[0].append(1)),
    "a forward hook": (_hooked, lambda v: v(torch.ones(1, 2))),
    "a loader's generator": (_loader, list),
    "a position in a list": (lambda: [torch.zeros(1), Slots()], lambda v: setattr(v[1], "count", 1)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_inside_an_object_is_restored_in_place(case: str) -> None:
    make, change = CHANGES[case]
    torch.manual_seed(0)
    kept: list[Any] = []

    def make_and_keep() -> dict[str, Any]:
        kept.append(make())
        return {"a": kept[-1]}

    process = resumed(make_and_keep, lambda values: change(values["a"]))
    assert process.values["a"] is kept[-1], "others may refer to it"


def test_an_optimizer_and_a_scheduler_in_attributes_are_restored_with_their_weights() -> None:
    def train(values: dict[str, Any]) -> None:
        for _ in range(3):
            _step(values)

    process = resumed(_with_optimizer, train)
    optimizer, net = process.values["optimizer"], process.values["net"]
    assert all(weight is own for weight, own in zip(net.parameters(), optimizer.param_groups[0]["params"], strict=True))
    assert set(optimizer.state) == set(net.parameters())
    assert process.values["schedule"].optimizer is optimizer


# what is shared


def _shared() -> dict[str, Any]:
    bank, rows = torch.zeros(4), np.zeros(4)
    items: list[int] = [1]
    return {
        "bank": bank,
        "rows": rows,
        "items": items,
        "views": {"bank": bank, "rows": rows, "items": items, "o": _closure},
    }


def test_what_two_attributes_share_they_share_after_a_resume() -> None:
    def change(values: dict[str, Any]) -> None:
        values["bank"] += 1
        values["rows"] += 1
        values["items"].append(3)

    values = resumed(_shared, change).values
    assert all(values["views"][name] is values[name] for name in ("bank", "rows", "items"))


@pytest.mark.parametrize("name", ["bank", "rows", "items"])
@pytest.mark.parametrize("replaced", ["attribute", "view"])
def test_what_two_attributes_no_longer_share_is_not_shared_after_a_resume(name: str, replaced: str) -> None:
    def change(values: dict[str, Any]) -> None:
        holder = values if replaced == "attribute" else values["views"]
        holder[name] = deepcopy(holder[name])
        holder[name][0] = 9

    values = resumed(_shared, change).values
    values["views"][name][0] = 7
    assert values[name][0] != 7


def test_a_view_of_a_tensor_shares_its_memory_after_a_resume() -> None:
    def make() -> dict[str, Any]:
        bank = torch.zeros(4)
        return {"bank": bank, "first": bank[:2], "last": bank[2:]}

    values = resumed(make, lambda values: values["bank"].add_(1)).values
    values["bank"].add_(1)
    assert values["first"].tolist() == [2, 2] == values["last"].tolist()


def test_a_copy_that_replaced_a_view_of_weights_leaves_the_weights() -> None:
    def make() -> dict[str, Any]:
        net = nn.Linear(2, 2)
        return {"previous": net.weight.data, "known": net.weight}

    first, second = Process(make), Process(make)
    first.values["previous"] = torch.full((2, 2), 5.0)
    before = second.known.detach().clone()
    second.load(first.save())
    assert torch.equal(second.values["previous"], first.values["previous"])
    assert torch.equal(second.known, before)


def test_a_reference_to_what_a_checkpoint_saves_is_one_after_a_resume() -> None:
    def make() -> dict[str, Any]:
        return {"active": None, "known": nn.Linear(1, 1)}

    first, second = Process(make), Process(make)
    first.values["active"] = [first.known]
    second.load(first.save())
    assert second.values["active"][0] is second.known


# what cannot be saved


@pytest.mark.parametrize(
    ("make", "change", "path"),
    [
        (lambda: iter(_loader()), next, "a"),
        (lambda: {"it": iter(_loader())}, lambda v: next(v["it"]), "a['it']"),
        (Average, lambda v: setattr(v, "mean", _closure()), "a.mean"),
        (Average, lambda v: setattr(v, "mean", nn.Linear(1, 1)), "a.mean"),
        (Average, lambda v: setattr(v, "mean", Needs()), "a.mean"),
        (lambda: multiprocessing.Manager().list([0]), lambda v: v.append(1), "a"),
        (Average, lambda v: setattr(v, "mean", Needs), "a.mean"),
        (Average, lambda v: v.rows.append(torch.zeros(3_000_000)), "a.rows"),
        (Average, lambda v: v.rows.extend([float(number) for number in range(1_200_000)]), "a.rows"),
        (lambda: np.zeros(2_000_000), lambda v: v.__setitem__(1_234_567, 1.0), "a"),
        (lambda: _file(2_000_000), lambda v: v.__setitem__(0, 1.0), "a"),
        (lambda: torch.zeros(4_000_000), lambda v: v.__setitem__(1_234_567, 1.0), "a"),
        (lambda: list(range(2_000_000)), lambda v: v.__setitem__(1_234_567, -1), "a"),
    ],
)
def test_a_change_that_cannot_be_saved_is_reported_with_its_path(
    make: Callable[[], Any], change: Callable[[Any], object], path: str
) -> None:
    process = Process(lambda: {"a": make()})
    process.save()
    assert not process.reports
    change(process.values["a"])
    process.save()
    assert [found for found, _ in process.reports] == [path]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("missing_module:Bank", "an object of missing_module.Bank here, a class that is not imported"),
        ("function src.data:make:12", "function src.data.make, line 12 here, and this run has not"),
        ("class src.data:Part", "class src.data.Part here, and this run has not"),
        ("src.data:make.<locals>.Part", "an object of class src.data.make.<locals>.Part here, and this run has not"),
        (f"{__name__}:Needs", f"an object of class {__name__}.Needs here, and this run has not"),
    ],
)
def test_what_a_resumed_run_lacks_is_called_what_it_is(
    label: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    process = Process(lambda: {"a": Average()})
    process.load({"a": ["object", [label, {}]]})
    (line,) = current_context().inexact
    assert line.startswith(f"a: the interrupted run had {reason}")


@pytest.mark.parametrize("change", [lambda v: v["rows"].append(1), lambda v: v["net"].weight.data.zero_()])
def test_a_change_deep_inside_a_value_changes_its_fingerprint(change: Any) -> None:
    value = {"rows": [0], "net": torch.nn.Linear(1, 1)}
    before = fingerprint(value, Known())
    assert fingerprint(value, Known()) == before
    change(value)
    assert fingerprint(value, Known()) != before


def test_objects_that_refer_to_each_other_are_visited_once() -> None:
    def make() -> dict[str, Any]:
        one, two = Average(), Average()
        one.rows, two.rows = [two], [one]
        return {"a": one}

    values = resumed(make, lambda values: setattr(values["a"].rows[0], "mean", 2.0)).values
    assert values["a"].rows[0].rows[0] is values["a"]


def test_a_loss_with_its_graph_is_saved_without_it() -> None:
    loss = torch.ones(1, requires_grad=True).sum() * 2
    values = resumed(lambda: {"a": []}, lambda values: values["a"].append(loss)).values
    assert not values["a"][0].requires_grad


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_tensor_of_a_file_that_is_only_read_is_not_read_as_a_whole(tmp_path: Path) -> None:
    path, other = tmp_path / "pixels", tmp_path / "other"
    path.write_bytes(bytes(range(256)) * 8192)  # 2 MiB
    other.write_bytes(bytes(range(255, -1, -1)) * 8192)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch: the array is not writable
        fixed, second = (torch.from_numpy(np.memmap(file, np.uint8, mode="r")) for file in (path, other))
    private = torch.from_numpy(np.memmap(path, np.uint8, mode="c"))
    for written in (private, torch.zeros(2**21, dtype=torch.uint8)):
        assert read_only_sign(written, lambda: ("made",)) is None
    before = leaf_sign(private, thorough=True)
    private[77] += 1
    assert leaf_sign(private, thorough=True) != before
    with patch("fulgurite.exact_resume.objects.signs._bytes_of", wraps=_bytes_of) as read:
        sign = leaf_sign(fixed, thorough=True)
        assert leaf_sign(fixed, thorough=True) == sign
    assert [call.args[0].numel() for call in read.call_args_list] == [NUM_SAMPLED]  # once
    fixed.data = second
    assert leaf_sign(fixed, thorough=True) != sign


@pytest.mark.parametrize("as_tensor", [False, True])
def test_another_file_or_another_part_of_one_that_is_only_read_is_a_change(as_tensor: bool, tmp_path: Path) -> None:
    def read(name: str, start: int = 0) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of arrays that cannot be written
            array = np.memmap(tmp_path / name, np.uint8, mode="r")[start : start + 2**21]
            return torch.from_numpy(array) if as_tensor else array

    for name in ("one", "other"):
        (tmp_path / name).write_bytes(bytes(2**22))
    sign = leaf_sign(read("one"), thorough=True)
    assert leaf_sign(read("one"), thorough=True) == sign
    assert leaf_sign(read("other"), thorough=True) != sign
    assert leaf_sign(read("one", 4096), thorough=True) != sign
    written = read("one")
    assert leaf_sign(written, thorough=True) == sign
    file = np.memmap(tmp_path / "one", np.uint8, mode="r+")
    file[77] = 1
    file.flush()
    assert leaf_sign(written, thorough=True) != sign


class Named(np.ndarray[Any, Any]):
    """An array with attributes."""


class Label(str):
    """A text with attributes."""

    __slots__ = ("__dict__",)


@pytest.mark.parametrize("value", [np.ones(3).view(Named), Label("a")], ids=["array", "text"])
def test_an_attribute_of_a_subclass_that_changes_in_place_is_noticed(value: Any) -> None:
    value.history = [1]
    before = leaf_sign(value, thorough=True)
    assert leaf_sign(value, thorough=True) == before
    value.history.append(2)
    assert leaf_sign(value, thorough=True) != before
    assert leaf_to_plain(value) is None  # so that a save names it
