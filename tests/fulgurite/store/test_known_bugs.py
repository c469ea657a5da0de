"""Ten faults of an earlier library for configs that reload, X1 to X10: none of them is here."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fulgurite.core.errors import ConfigError, FulguriteError, UserError
from fulgurite.store import Change, EnvironmentLoader, FileLoader, FunctionLoader, SourceLoader, Store
from tests.support.http_server import LoopbackServer
from tests.support.run_if import RunIf
from tests.support.store_loader import FedLoader, wait_until


def num_reloads(store: Store, loader: str, result: str) -> int:
    return store.metrics.stats(store.name, loader).counts[result]


def test_x1_loader_hooks_run_also_when_a_key_hook_runs() -> None:
    calls: list[str] = []
    fed = FedLoader({"lr": 0.1})
    with Store() as store:
        store.add(fed, lambda _: calls.append("loader"))
        store.on_change("lr", lambda _: calls.append("key"))
        store.load_watch()
        fed.feed({"lr": 0.2})
        wait_until(lambda: num_reloads(store, "fed", "success"))
    assert calls == ["loader", "key", "loader", "key"]


def test_x2_a_hook_may_set_values_make_groups_and_close_the_store() -> None:
    fed = FedLoader({"lr": 0.1})
    closed: list[bool] = []
    store = Store(fed)
    store.on_close(lambda: closed.append(True))

    def hook(change: Change) -> None:
        store.group("made").strict()
        if "lr" in change.changed:
            store.set("from_hook", change.new["lr"])
        if "stop" in change.added:
            store.close()

    store.on_change("", hook)
    store.load_watch()
    fed.feed({"lr": 0.2})
    wait_until(lambda: store.get("from_hook") == 0.2)
    store.set("other", 1)  # no lock is left behind
    fed.feed({"lr": 0.2, "stop": 1})
    wait_until(lambda: closed)
    assert store.must_get("stop") == 1


def test_x2_hooks_that_answer_each_other_come_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    store = Store(FunctionLoader({"n": 0}))
    store.on_change("n", lambda change: store.set("n", change.new["n"] + 1))
    store.load()
    assert 0 < store.must_get("n") < 100
    assert "Stopped there" in caplog.text


def test_x3_what_a_hook_refuses_is_never_published() -> None:
    fed = FedLoader({"lr": 0.1})
    undone: list[str] = []

    def first(change: Change) -> None:
        change.on_rollback(lambda: undone.append("first"))
        change.on_rollback(lambda: undone.append("second"))

    def refuse(change: Change) -> None:
        seen.append(store.get("lr"))
        if change.new["lr"] > 1:
            raise UserError(f"lr={change.new['lr']}: is above 1. Lower it.")

    seen: list[float | None] = []
    with Store() as store:
        store.on_change("", first)
        store.add(fed, lambda _: None)
        store.load()
        store.on_change("lr", refuse)
        store.watch()
        fed.feed({"lr": 2.0, "new": True})
        wait_until(lambda: num_reloads(store, "fed", "failure"))
        assert store.snapshot().as_dict() == {"lr": 0.1}
        assert seen == [0.1]
        assert undone == ["second", "first"]
        with pytest.raises(UserError, match=r"lr=2.0: is above 1"):
            store.load()
        assert store.must_get("lr") == 0.1


def test_x4_errors_of_closers_are_raised_and_all_are_closed() -> None:
    class Stuck(FedLoader):
        def close(self) -> None:
            super().close()
            raise OSError("loader is stuck")

    stuck, closed = Stuck({}), []
    store = Store(stuck, FunctionLoader({}))

    def fail() -> None:
        raise ValueError("no closer")

    store.on_close(fail)
    store.on_close(lambda: closed.append(True))
    store.load()
    with pytest.raises(FulguriteError, match=r"OSError: loader is stuck.*ValueError: no closer"):
        store.close()
    assert (stuck.is_closed, closed) == (True, [True])
    store.close()  # twice is once


@pytest.mark.parametrize(
    ("value", "kind"),
    [("abc", int), ("notabool", bool), ("1.5", int), (True, float), (1.1, str), (float("nan"), float)],
)
def test_x5_a_value_of_the_wrong_type_is_an_error_at_its_first_read(value: object, kind: type[Any]) -> None:
    store = Store(FunctionLoader({"key": value}, "train.yaml")).load()
    line = rf"^key={value}: is not .+\. Correct it in train.yaml\.$"
    with pytest.raises(ConfigError, match=line):
        store.must_get("key", kind)
    with pytest.raises(ConfigError, match=line):
        store.get("key", kind=kind)


def test_x5_an_edit_to_the_wrong_type_keeps_the_last_good_value(caplog: pytest.LogCaptureFixture) -> None:
    fed = FedLoader({"debug": False, "lr": 0.1})
    with Store(fed) as store:
        lr = store.getter("lr", 1.0)
        store.load_watch()
        assert store.get("debug", True) is False
        fed.feed({"debug": "notabool", "lr": "fast"})
        wait_until(lambda: num_reloads(store, "fed", "failure"))
        assert (store.get("debug", True), lr()) == (False, 0.1)
    assert "lr=fast: is not a number. Correct it in fed." in caplog.text
    assert "debug=notabool: is not true or false. Correct it in fed." in caplog.text


def test_x6_a_failed_poll_never_ends_watching_and_is_retried() -> None:
    answers: list[Any] = [{"n": 1}, OSError("down"), OSError("down"), {"n": 2}]
    calls: list[float] = []

    def read() -> dict[str, Any]:
        calls.append(time.perf_counter())
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    with Store(FunctionLoader(read, "polled", poll_seconds=0.01, max_retry=1, retry_delay=0.0)) as store:
        store.load_watch()
        wait_until(lambda: store.get("n") == 2)
        assert num_reloads(store, "polled", "failure") == 1  # the two attempts of one reload
        assert num_reloads(store, "polled", "success") == 1  # equal values are no reload


def test_x6_a_closed_store_leaves_no_thread() -> None:
    loaders = [FunctionLoader(dict, f"polled {n}", poll_seconds=0.01) for n in range(3)]
    store = Store(*loaders, FedLoader({}, "fed alone")).load_watch()
    names = {f"config of {entry.loader.name}" for entry in store.entries}
    assert names <= {thread.name for thread in threading.enumerate()}
    store.close()
    assert not names & {thread.name for thread in threading.enumerate()}


def test_x6_lists_and_arrays_can_be_compared() -> None:
    values: dict[str, Any] = {"array": np.zeros(2), "steps": [1, [2]], "nan": float("nan"), "n": 0}
    with Store(FunctionLoader(lambda: {**values}, "polled", poll_seconds=0.01)) as store:
        changes: list[frozenset[str]] = []
        store.load()
        store.on_change("", lambda change: changes.append(change.keys))
        store.watch()
        values.update(steps=[1, [3]], array=np.ones(2))
        wait_until(lambda: changes)
        assert store.must_get("steps") == (1, (3,))
        assert num_reloads(store, "polled", "failure") == 0
        assert changes == [{"array", "steps"}]


def test_x7_the_order_of_loaders_decides_not_which_was_loaded_last() -> None:
    low, high = FedLoader({"lr": 0.1, "low": 1}, "low"), FedLoader({"lr": 0.2}, "high")
    with Store(low, high).load_watch() as store:
        low.feed({"lr": 0.3, "low": 2})
        wait_until(lambda: store.get("low") == 2)
        assert store.get("lr") == 0.2
        high.feed({})  # the key falls back to the loader below
        wait_until(lambda: store.get("lr") == 0.3)
        low.feed({"low": 3})  # a key that no loader has any longer is gone
        wait_until(lambda: "lr" not in store)
        assert store.get("lr", 1.5) == 1.5


def test_x8_required_fields_of_nested_dataclasses_have_their_whole_key() -> None:
    @dataclass(frozen=True)
    class Inner:
        lr: float
        beta: float = 0.9

    @dataclass(frozen=True)
    class Middle:
        inner: Inner

    @dataclass(frozen=True)
    class Outer:
        middle: Middle
        epochs: int

    globals().update(Inner=Inner, Middle=Middle)
    store = Store(FunctionLoader({"a": {"b": {"middle": {"inner": {"beta": 0.5}}}}}, "train.yaml"))
    store.bind(Outer, "a.b")
    with pytest.raises(ConfigError) as error:
        store.load()
    assert error.value.findings == [
        "a.b.middle.inner.lr: is missing. Set it in train.yaml.",
        "a.b.epochs: is missing. Set it in train.yaml.",
    ]


def test_x9_load_and_watch_include_groups_and_their_metrics() -> None:
    fed = FedLoader({"host": "a"})
    with Store() as store:
        group = store.group("db").group("primary")
        group.add(fed)
        group.strict("host")
        assert store.group("db").group("primary") is group
        store.load_watch()
        assert group.must_get("host", str) == "a"
        assert "host" not in store  # keys stay in their group
        fed.feed({"host": "b"})
        wait_until(lambda: group.get("host") == "b")
        wait_until(lambda: store.metrics.stats("root/db/primary", "fed").counts["success"] == 1)
    assert fed.is_closed


class Answered203(BaseHTTPRequestHandler):
    """Answers with a status of success that is not 200."""

    def do_GET(self) -> None:
        self.send_response(203)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"lr: 1\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        pass


@RunIf(path="/proc/self/fd")
def test_x10_any_status_of_success_is_read_and_no_connection_stays_open() -> None:
    with LoopbackServer(Answered203) as server:
        store = Store(SourceLoader(f"http://127.0.0.1:{server._server.server_port}/c.yaml")).load()
        assert store.get("lr") == 1
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a number
        for _ in range(30):
            store.load()
        assert len(os.listdir("/proc/self/fd")) < before + 15  # noqa: PTH208 - the server closes its own ends later


def test_x10_a_missing_key_hides_no_later_one(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("b: 1\n")
    (tmp_path / "d").write_text("text\n")
    paths = ["a.yaml", "b.yaml", "c", "d"]
    store = Store(SourceLoader(str(tmp_path), paths, required=False, name="folder")).load()
    assert store.snapshot().as_dict() == {"b": 1, "d": "text"}
    with pytest.raises(ConfigError) as error:
        Store(SourceLoader(str(tmp_path), paths)).load()
    assert [line.split(": ")[0] for line in error.value.findings] == [f"{tmp_path}/a.yaml", f"{tmp_path}/c"]


def test_x10_a_variable_that_is_not_set_does_not_satisfy_a_required_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APP_TOKEN", raising=False)
    store = Store(EnvironmentLoader(variables={"APP_TOKEN": "token"}), strict=["token"])
    with pytest.raises(ConfigError, match=r"^token: is missing\. Set it in environment\.$"):
        store.load()
    monkeypatch.setenv("APP_TOKEN", "x")
    assert store.load().must_get("token") == "x"


def test_x10_blank_lines_and_comments_of_an_env_file_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "settings.env"
    path.write_text("# comment\n\nLR=0.1\nexport NAME='a b'  # why\n")
    store = Store(FunctionLoader({"LR": 1.0}), FileLoader(path)).load()
    assert store.snapshot().as_dict() == {"LR": 0.1, "NAME": "a b"}


def test_x10_a_file_that_does_not_exist_yet_is_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "later" / "live.yaml"
    with Store(FunctionLoader({"lr": 1}), FileLoader(path, required=False, poll_seconds=0.02)).load_watch() as store:
        threading.Event().wait(0.1)  # it looks for the folder
        path.parent.mkdir()
        path.write_text("lr: 2\n")
        wait_until(lambda: store.get("lr") == 2)
    assert caplog.messages == []


def test_x10_stop_on_failure_stops_and_without_it_the_last_good_values_stay(caplog: pytest.LogCaptureFixture) -> None:
    stopping, staying = FedLoader({"a": 1}, "stopping", stop_on_failure=True), FedLoader({"b": 1}, "staying")
    closed: list[bool] = []
    store = Store(stopping, staying).load_watch()
    store.on_close(lambda: closed.append(True))
    staying.feed(UserError("staying: is broken. Mend it."))
    wait_until(lambda: num_reloads(store, "staying", "failure"))
    assert not store.is_closed
    stopping.feed(UserError("stopping: is broken. Mend it."))
    wait_until(lambda: closed)
    assert str(store.failure) == "stopping: is broken. Mend it."
    assert (store.get("a"), store.get("b")) == (1, 1)
    assert staying.is_closed
    assert [record.levelno for record in caplog.records if "stop_on_failure" in record.message] == [logging.ERROR]
    with pytest.raises(UserError, match="store=root: is closed"):
        store.load()
