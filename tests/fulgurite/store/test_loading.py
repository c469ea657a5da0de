"""Loads: the order of loaders, retries, what fails, strict keys, hooks, groups, set; each load a transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import known_secrets
from fulgurite.store import Change, EnvironmentLoader, FlagLoader, FunctionLoader, Loader, Store
from tests.support.store_loader import FedLoader, wait_until


class Flaky(Loader):
    """Fails so many times, then gives its values."""

    def __init__(self, failures: int, **options: Any) -> None:
        super().__init__("flaky", **options)
        self.failures, self.attempts = failures, 0

    def load(self) -> Mapping[str, Any]:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise UserError("flaky: is down. Start it.")
        return {"lr": 0.1}


def test_a_loader_that_fails_is_retried_with_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(2, max_retry=2, retry_delay=0.001)
    assert Store(flaky).load().get("lr") == 0.1
    assert flaky.attempts == 3
    assert [record.message for record in caplog.records] == [
        "flaky: is down. Start it. Attempt 2 of 3 follows.",
        "flaky: is down. Start it. Attempt 3 of 3 follows.",
    ]
    flaky = Flaky(3, max_retry=1, retry_delay=0.0)
    with pytest.raises(ConfigError, match=r"^flaky: is down. Start it.$"):
        Store(flaky).load()
    assert flaky.attempts == 2


@pytest.mark.parametrize(
    "options", [{"max_retry": -1}, {"retry_delay": float("nan")}, {"poll_seconds": 0}, {"poll_seconds": float("inf")}]
)
def test_an_option_that_is_no_number_is_refused(options: dict[str, float]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=rf"^flaky: {name}={value:g} .+\. (Correct it|Set a number above 0)\.$"):
        Flaky(0, **options)


def test_all_that_is_wrong_comes_together_and_nothing_is_published() -> None:
    good = FedLoader({"lr": 1}, "good")
    store = Store(good, Flaky(9), FunctionLoader(list, "list"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        store.load()
    assert error.value.findings == [
        "flaky: is down. Start it.",
        "list: gives a list, not a dictionary. Return one.",
    ]
    assert not store.is_loaded


def test_a_loader_that_is_not_required_is_left_out_until_it_can_be_loaded(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader(OSError("refused"), "remote", required=False)
    with Store(FunctionLoader({"lr": 1}), fed).load_watch() as store:
        assert store.get("lr") == 1
        assert caplog.messages == ["remote: OSError: refused. It is left out until it can be loaded."]
        fed.feed({"lr": 2})
        wait_until(lambda: store.get("lr") == 2)


def test_a_loader_that_is_not_required_may_raise_any_error(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader(KeyError("lr"), "mine", required=False)
    with Store(FunctionLoader({"lr": 1}), fed).load_watch() as store:
        assert store.get("lr") == 1
        assert caplog.messages == ["mine: KeyError: 'lr'. It is left out until it can be loaded."]
        assert caplog.records[0].exc_info  # a bug of the loader is found with its traceback
        fed.feed({"lr": 2})
        wait_until(lambda: store.get("lr") == 2)
    with pytest.raises(KeyError):
        Store(FedLoader(KeyError("lr"))).load()


def test_stop_on_failure_closes_the_store_at_the_first_load() -> None:
    store, closed = Store(FedLoader({}), FedLoader(UserError("a: is bad. Mend it."), "a", stop_on_failure=True)), []
    store.on_close(lambda: closed.append(True))
    with pytest.raises(UserError, match="a: is bad"):
        store.load_watch()
    assert closed == [True]
    assert store.is_closed
    assert all(entry.thread is None for entry in store.entries)


def test_a_crash_of_a_loader_or_a_hook_keeps_its_type() -> None:
    with pytest.raises(ZeroDivisionError):
        Store(FunctionLoader(lambda: {"n": 1 // 0})).load()
    store = Store(FunctionLoader({"n": 1}))
    store.on_change("n", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        store.load()
    assert not store.is_loaded


def test_a_crash_in_a_reload_is_logged_with_its_traceback_and_watching_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fed = FedLoader({"n": 1})
    with Store(fed) as store:
        store.on_change("n", lambda change: 1 // (change.new["n"] - 2))
        store.load_watch()
        fed.feed({"n": 2})
        wait_until(lambda: store.metrics.stats("root", "fed").counts["failure"])
        assert store.get("n") == 1
        fed.feed({"n": 3})
        wait_until(lambda: store.get("n") == 3)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.exc_info is not None
    assert record.message == (
        "fed: ZeroDivisionError: integer division or modulo by zero. The store keeps the last good values."
    )


def test_strict_keys_are_checked_after_all_loaders_and_before_each_publish(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader({"lr": None}, "train.yaml")
    store = Store(fed, FunctionLoader({"name": "adam"}, "defaults"), strict=["optimizer.lr", "name", "lr"])
    with pytest.raises(ConfigError) as error:
        store.load()
    assert error.value.findings == [
        "optimizer.lr: is missing. Did you mean 'lr'? Set it in train.yaml or defaults.",
        "lr: is missing. Correct it in train.yaml.",
    ]
    fed.values = {"lr": 1, "optimizer": {"lr": 0}}
    with store.load_watch():
        fed.feed({"lr": 1})
        wait_until(lambda: store.metrics.stats("root", "train.yaml").counts["failure"])
        assert store.get("optimizer.lr") == 0
        with pytest.raises(ConfigError, match="new: is missing"):
            store.strict("new")
        fed.feed({"lr": 2, "optimizer.lr": 1})  # the refused key is not required
        wait_until(lambda: store.get("lr") == 2)
    assert "optimizer.lr: is missing" in caplog.text


def test_key_hooks_run_once_a_load_and_only_below_their_prefix() -> None:
    calls: list[tuple[str, Change]] = []
    first = FedLoader({"optimizer": {"lr": 1, "name": "a"}, "optimizers": 1}, "first")
    store = Store(first, FunctionLoader({"optimizer": {"beta": 1}, "data": 2}))

    def noting(prefix: str) -> Callable[[Change], None]:
        return lambda change: calls.append((prefix, change))

    for prefix in ("optimizer", "optimizer", "optimizer.lr", "opt", ""):
        store.on_change(prefix, noting(prefix))
    store.load()
    assert [prefix for prefix, _ in calls] == ["optimizer", "optimizer", "optimizer.lr", ""]
    assert calls[0][1].added == {"optimizer.lr", "optimizer.name", "optimizer.beta"}
    assert calls[0][1].loaders == ("first", "function")
    calls.clear()
    first.values = {"optimizer": {"lr": True, "new": 0}, "optimizers": 1}
    store.load()
    change = calls[0][1]
    assert [change.changed, change.added, change.removed] == [{f"optimizer.{key}"} for key in ("lr", "new", "name")]
    assert (change.old["optimizer.lr"], change.new["optimizer.lr"]) == (1, True)
    calls.clear()
    store.load()  # nothing changes
    assert calls == []


def test_loader_hooks_run_once_for_each_load_of_their_loader_in_order() -> None:
    calls: list[str] = []
    one, two = FedLoader({"a": 1}, "one"), FedLoader({"b": 1}, "two")
    with Store() as store:
        store.add(one, lambda _: calls.append("one"), lambda _: calls.append("one again"))
        store.add(two, lambda change: calls.append(f"two {sorted(change.keys)}"))
        store.load()
        assert calls == ["one", "one again", "two ['a', 'b']"]
        calls.clear()
        store.load()  # also where nothing changes
        assert calls == ["one", "one again", "two []"]
        calls.clear()
        store.watch()
        two.feed({"b": 2})
        wait_until(lambda: calls)
    assert calls == ["two ['b']"]


def test_a_load_of_groups_is_one_transaction() -> None:
    outer, inner = FedLoader({"n": 1}, "outer"), FedLoader({"n": 1}, "inner")
    store = Store(outer)
    group = store.group("db").add(inner)
    group.getter("n", 0)
    store.load()
    outer.values, inner.values = {"n": 2}, {"n": "two"}
    with pytest.raises(ConfigError, match=r"^store=root/db: n=two: is not a whole number. Correct it in inner.$"):
        store.load()
    assert (store.get("n"), group.get("n")) == (1, 1)
    inner.values = {"n": 2}
    group.load()  # alone
    assert (store.get("n"), group.get("n")) == (1, 2)


def test_set_stands_above_all_loaders_and_is_checked_as_a_load() -> None:
    fed = FedLoader({"optimizer": {"lr": 1}})
    calls: list[frozenset[str]] = []
    with Store(fed) as store:
        store.load_watch()
        store.get("optimizer.lr", 1.0)
        store.on_change("optimizer", lambda change: calls.append(change.changed))
        store.set("optimizer.lr", 2)
        fed.feed({"optimizer": {"lr": 3}, "fed": True})
        wait_until(lambda: "fed" in store)
        assert (store.get("optimizer.lr"), store.origin("optimizer.lr")) == (2, "set")
        with pytest.raises(ConfigError, match=r"optimizer.lr=fast: is not a number. Correct it in set."):
            store.set("optimizer.lr", "fast")
        store.set("optimizer", {"lr": 4, "beta": [1]})
        assert store.must_get("optimizer") == {"lr": 4, "beta": (1,)}
    assert calls == [{"optimizer.lr"}, {"optimizer.lr"}]


def test_a_closed_store_can_be_read_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader({"n": 1})
    with Store(fed).load_watch() as store:
        pass
    fed.feed({"n": 2})
    assert (store.get("n"), store.must_get("n", int), store.getter("n", 0)()) == (1, 1, 1)
    for action in (store.load, store.watch, lambda: store.set("n", 3)):
        with pytest.raises(UserError, match=r"^store=root: is closed. Make a new one.$"):
            action()
    assert caplog.messages == []


def test_a_hook_that_loads_its_own_store_is_a_mistake_of_the_code() -> None:
    store = Store(FunctionLoader({"n": 1}))
    store.on_change("n", lambda _: store.load())
    with pytest.raises(RuntimeError, match="a hook cannot load its own store"):
        store.load()
    store = Store(FunctionLoader({"n": 1}))
    store.on_change("n", lambda _: store.strict("m"))
    with pytest.raises(RuntimeError, match="a hook cannot bind or require keys"):
        store.load()
    assert store.strict_keys == ()


def test_text_takes_the_type_of_the_number_that_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_LR", "1e-3")
    monkeypatch.setenv("APP_DEBUG", "yes")
    monkeypatch.setenv("APP_DEVICES", "auto")
    monkeypatch.setenv("APP_OPTIMIZER__NAME", "0.5")
    defaults = {"lr": 1, "debug": False, "devices": 1, "optimizer": {"name": "adam"}, "epochs": 1}
    flags = FlagLoader(["--epochs=0.5", "epochs=2", "--verbose", "--a.b=c=d"])
    store = Store(FunctionLoader(defaults), EnvironmentLoader("APP_"), flags).load()
    assert store.snapshot().as_dict() == {
        "lr": 1e-3, "debug": True, "devices": "auto", "optimizer": {"name": "0.5"}, "epochs": 2, "verbose": True,
        "a": {"b": "c=d"},
    }  # fmt: skip


@pytest.mark.parametrize("argument", ["train", "-x", "--", "=1", "--=1", "-x=1"])
def test_an_argument_that_is_no_flag_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"^flags: '{argument}' is not --key=value. Write it so.$"):
        Store(FlagLoader([argument])).load()


def test_a_secret_in_an_argument_that_is_no_flag_is_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"^flags: '-password=\*\*\*' is not --key=value. Write it so.$"):
        Store(FlagLoader(["-password=canary"])).load()


def test_two_loaders_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"^fed: two loaders have this name. Pass name= to one of them.$"):
        Store(FedLoader({}), FedLoader({}))


def test_secrets_are_not_shown_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_secrets, "values", {})
    canary = "s3cr3t-canary"
    values = {"api_key": canary, "db": {"password": canary}, "access_tokens": [canary]}
    store = Store(FunctionLoader(values))
    store.getter("api_key", 1)
    store.getter("access_tokens", kind=list[int])
    store.getter("db.password", 0.5)
    with pytest.raises(ConfigError) as error:
        store.load()
    assert "canary" not in str(error.value)
    assert "api_key=***: is not a whole number." in str(error.value)


def test_a_dataclass_is_replaced_whole_and_a_removed_key_returns_to_its_default() -> None:
    @dataclass(frozen=True)
    class Optimizer:
        lr: float
        betas: tuple[float, float] = (0.9, 0.99)
        name: str = field(default="sgd", metadata={"key": "optimizer-name"})

        def __post_init__(self) -> None:
            if self.lr > 1:
                raise ValueError("lr is above 1")

    fed = FedLoader({"optimizer": {"lr": 1, "optimizer-name": "adam", "betas": [0, 1], "other": 1}})
    with Store(fed) as store:
        bound = store.bind(Optimizer, "optimizer")
        store.load_watch()
        before = bound.value
        assert before == Optimizer(1.0, (0.0, 1.0), "adam")
        fed.feed({"optimizer": {"lr": "2e-1"}})
        wait_until(lambda: bound.value != before)
        assert bound.value == Optimizer(0.2)
        assert before.name == "adam"
        with pytest.raises(ConfigError, match=r"^optimizer: is refused by Optimizer \(lr is above 1\)\. Set it in fed"):
            store.set("optimizer.lr", 5)
        store.bind(Optimizer, "optimizer", exact=True)
        with pytest.raises(ConfigError) as error:
            store.set("optimizer", {"lr": "x", "bettas": 1})
        assert error.value.findings[-1].startswith(
            "optimizer.bettas=1: is not a field of Optimizer. Did you mean 'betas'?"
        )
        assert bound.value == Optimizer(0.2)
