"""Reads: typed, with defaults, of one reload, without a lock, at the cost of a few dictionary lookups."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import OmegaConf

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.store import Change, FunctionLoader, Store
from tests.support.store_loader import FedLoader, wait_until

VALUES = {"optimizer": {"lr": 0.1, "name": "adam"}, "steps": [1, 2], "epochs": 3, "none": None}


@dataclass(frozen=True)
class Pair:
    """Two values that belong together."""

    first: int
    second: int


def loaded(values: Mapping[str, Any] = VALUES) -> Store:
    return Store(FunctionLoader(values, "train.yaml")).load()


def test_get_returns_the_value_its_type_or_the_default() -> None:
    store = loaded()
    for _ in range(2):  # the first read, and those after it
        assert store.get("optimizer.lr") == 0.1
        assert store.get("optimizer.lr", 1.0) == 0.1
        assert store.get("missing") is None
        assert store.get("missing", 2.5) == 2.5
        assert store.get("missing", 7) == 7
        assert (store.get("epochs", 1.0), type(store.get("epochs", 1.0))) == (3.0, float)
        assert (store.get("epochs"), store.get("epochs", kind=float), store.get("epochs", 1)) == (3, 3.0, 3)
        assert store.get("steps") == (1, 2)
        assert store.get("steps", kind=list[float]) == [1.0, 2.0]
        assert store.get("optimizer") == {"lr": 0.1, "name": "adam"}
        assert store.get("none", kind=int | None) is None
        assert store.must_get("optimizer", Named) == Named(0.1, "adam")
    assert ("optimizer" in store, "optimizer.lr" in store, "lr" in store) == (True, True, False)
    assert store.origin("optimizer.lr") == "train.yaml"


def test_must_get_names_a_missing_key_and_the_nearest_one() -> None:
    store = loaded()
    assert store.must_get("optimizer.lr", float) == store.must_get("optimizer.lr") == 0.1
    message = r"^optimizer.lrr: is missing. Did you mean 'optimizer.lr'\? Set it, or read it with a default.$"
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            store.must_get("optimizer.lrr", float)
    store.get("optimizer.lrr", 1.0)
    with pytest.raises(UserError, match="is missing"):
        store.must_get("optimizer.lrr", float)
    with pytest.raises(UserError, match="is missing"):
        store.origin("optimizer")


def test_a_list_that_a_reader_changes_is_its_own() -> None:
    store = loaded()
    store.must_get("steps", list[int]).append(3)
    assert store.get("steps", kind=list[int]) == [1, 2]
    with pytest.raises(TypeError):
        store.must_get("optimizer")["lr"] = 1
    with pytest.raises(TypeError, match=r"cannot be pickled: pass store.snapshot\(\).as_dict\(\)"):
        pickle.dumps(store)
    copy = store.snapshot().as_dict()
    copy["steps"].append(3)
    assert store.snapshot().as_dict() == VALUES


def test_a_store_that_is_not_loaded_says_so_at_each_read() -> None:
    store = Store(FunctionLoader(VALUES))
    binding, getter = store.bind(Pair), store.getter("epochs", 1)
    for read in (lambda: store.get("epochs", 1), lambda: binding.value, getter, store.snapshot, store.watch):
        with pytest.raises(UserError, match=r"^store=root: is not loaded. Call load\(\) first.$"):
            read()
    with pytest.raises(UserError, match="is not loaded"):
        store.set("epochs", 1)
    with pytest.raises(UserError, match=r"^store=root: has no loader. Add one first.$"):
        Store().load()


def test_a_getter_returns_the_newest_value() -> None:
    fed = FedLoader({"lr": 1, "name": "a"})
    with Store(fed) as store:
        lr, name, plain = store.getter("lr", 0.5), store.getter("name", kind=str), store.getter("lr")
        store.load_watch()
        assert (lr(), lr(), name(), plain()) == (1.0, 1.0, "a", 1)
        assert isinstance(lr(), float)
        fed.feed({"name": "b"})
        wait_until(lambda: name() == "b")
        assert lr() == 0.5
        with pytest.raises(UserError, match="lr: is missing"):
            plain()


def test_types_of_getters_are_checked_at_the_first_load() -> None:
    store = Store(FunctionLoader({"lr": "fast", "n": 1}, "train.yaml"), strict=["key"])
    store.getter("lr", 0.1)
    with pytest.raises(ConfigError) as error:
        store.load()
    assert error.value.findings == [
        "key: is missing. Set it in train.yaml.",
        "lr=fast: is not a number. Correct it in train.yaml.",
    ]


def test_two_types_of_one_key_are_both_checked(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader({"n": 1})
    with Store(fed).load_watch() as store:
        assert (store.must_get("n", int), store.must_get("n", float)) == (1, 1.0)
        assert (type(store.get("n", 1)), type(store.get("n", 1.0))) == (int, float)
        fed.feed({"n": 1.5})
        wait_until(lambda: store.metrics.stats("root", "fed").counts["failure"])
        assert store.must_get("n", float) == 1.0
    assert "n=1.5: is not a whole number." in caplog.text


def test_values_of_one_reload_are_seen_together() -> None:
    number = [0]

    def values() -> dict[str, int]:
        number[0] += 1
        return {"first": number[0], "second": number[0]}

    store = Store(FunctionLoader(values))
    pair = store.bind(Pair)
    store.load()
    stop, torn, seen = threading.Event(), [], set()

    def read() -> None:
        last = 0
        while not stop.is_set():
            value, snapshot = pair.value, store.snapshot()
            seen.add(value.first)
            if value.first != value.second or snapshot["first"] != snapshot["second"] or value.first < last:
                torn.append(value)
            last = value.first

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # switch between threads in the middle of reads and loads
    try:
        wait_until(lambda: len(store.load().snapshot()) == 2 and len(seen) > 20)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join()
    assert torn == []


def test_reads_do_not_wait_for_a_reload_that_takes_long() -> None:
    fed, entered, leave = FedLoader({"lr": 0.1}), threading.Event(), threading.Event()

    def hook(change: Change) -> None:
        if change.changed:
            entered.set()
            assert leave.wait(20)

    with Store(fed) as store:
        store.on_change("lr", hook)
        store.load_watch()
        fed.feed({"lr": 0.2})
        assert entered.wait(20)
        try:  # each of these would hang if it took the lock of the transaction
            assert store.get("lr", 1.0) == store.must_get("lr") == store.getter("lr", 1.0)() == 0.1
            assert store.get("unknown", "first read") == "first read"
            assert store.snapshot()["lr"] == 0.1
        finally:
            leave.set()
        wait_until(lambda: store.get("lr") == 0.2)


def calls_of(read: Callable[[], object]) -> int:
    """Return the number of functions that a read calls, in Python and in C."""
    calls: list[str] = []

    def note(frame: Any, event: str, argument: object) -> None:
        if event in {"call", "c_call"}:
            calls.append(event)

    sys.setprofile(note)
    try:
        read()
    finally:
        sys.setprofile(None)
    return len(calls) - 2  # the read itself, and the end of the profile


def test_a_read_is_one_call() -> None:
    store = loaded()
    getter, binding = store.getter("optimizer.lr", 0.5), store.bind(Named, "optimizer")
    reads: list[Callable[[], object]] = [
        lambda: store.get("optimizer.lr"),
        lambda: store.get("optimizer.lr", 0.5),
        lambda: store.get("missing", 0.5),
        lambda: store.must_get("optimizer.lr"),
        lambda: store.must_get("optimizer.lr", float),
        lambda: getter(),  # noqa: PLW0108 - a call from here, as the others are
        lambda: binding.value.lr,
    ]
    for read in reads:
        read()  # finds the type once
    assert [calls_of(read) for read in reads] == [1] * len(reads)


@dataclass(frozen=True)
class Named:
    """The bound group of `VALUES`."""

    lr: float
    name: str


def test_reads_beside_a_reloading_thread_cost_a_few_dictionary_lookups() -> None:
    from scripts.bench.store import _loop, _reloading, _seconds

    cfg = OmegaConf.create(VALUES)
    with loaded() as store, _reloading(store):
        names = {"store": store, "values": {**store.snapshot().leaves}, "cfg": cfg}
        texts = ("values['optimizer.lr']", "store.must_get('optimizer.lr', float)", "cfg.optimizer.lr")
        loops = [_loop(text, names) for text in texts]
        best = [1.0, 1.0, 1.0]
        for _ in range(8):
            for at, (loop, reads) in enumerate(zip(loops, (20_000, 20_000, 1_000), strict=True)):
                best[at] = min(best[at], _seconds(loop, reads, 1))
    assert best[1] <= 6 * best[0]  # 3 in scripts/bench/store.py; a busy machine varies
    assert best[2] >= 10 * best[1]
