"""Loaders of sources: HTTP, readers of your own, several values, formats, keys; streams; secrets of Vault."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import hide_secrets
from fulgurite.sources.reader import Fetched
from fulgurite.store import EnvironmentLoader, FunctionLoader, SourceLoader, Store, StreamLoader
from tests.support.servers import real
from tests.support.servers.doubles import double
from tests.support.store_loader import wait_until


class DictReader:
    """A reader of your own: values in memory, with a wait that a change wakes."""

    def __init__(self, values: dict[str, bytes], name: str = "memory://test") -> None:
        self.name, self.values, self.waits = name, values, 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, path: str, data: bytes) -> None:
        """Change a value."""
        with self._changed:
            self.values[path] = data
            self._changed.notify_all()

    def read(self, path: str) -> Fetched | None:
        data = self.values.get(path)
        return None if data is None else Fetched(data, data.hex())

    def list(self, path: str) -> list[str]:
        return sorted(self.values)

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        def differs() -> bool:
            found = self.read(path)
            return self._closed or (found.version if found else None) != version

        with self._changed:
            self.waits += 1
            return self._changed.wait_for(differs, timeout) and not self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def test_a_source_wakes_its_loader_and_is_not_polled() -> None:
    reader = DictReader({"train.yaml": b"lr: 1\n"})
    with Store(SourceLoader(reader, ["train.yaml"])).load_watch() as store:
        reader.put("train.yaml", b"lr: 2\n")
        wait_until(lambda: store.get("lr") == 2)
        reader.put("train.yaml", b"lr: [")
        wait_until(lambda: store.metrics.stats("root", reader.name).counts["failure"])
        reader.put("train.yaml", b"lr: 3\n")
        wait_until(lambda: store.get("lr") == 3)
        wait_until(lambda: reader.waits == 4)  # one for each change, and the one that waits now
    assert not any(thread.name == "config of memory://test" for thread in threading.enumerate())


def test_several_values_below_an_address_are_one_layer() -> None:
    reader = DictReader({"a.yaml": b"a: {b: 1}\n", "c.json": b'{"a": {"c": 2}}', "optimizer/lr": b"0.1\n"})
    loader = SourceLoader(reader, ["a.yaml", "c.json", "optimizer/lr"], key="top", poll_seconds=0.01)
    with Store(FunctionLoader({"top": {"optimizer": {"lr": 1.0}}}), loader).load_watch() as store:
        assert store.snapshot().as_dict() == {"top": {"optimizer": {"lr": 0.1}, "a": {"b": 1, "c": 2}}}
        reader.put("optimizer/lr", b"0.5")
        wait_until(lambda: store.get("top.optimizer.lr") == 0.5)


@pytest.mark.parametrize(
    ("suffix", "data"),
    [("yaml", b"a: {b: 1}\n"), (".yml", b"a.b: 1\n"), ("json", b'{"a": {"b": 1}}'), ("toml", b"[a]\nb = 1\n")],
)
def test_the_format_of_a_source_is_its_suffix_or_is_given(suffix: str, data: bytes) -> None:
    name = f"x.{suffix.lstrip('.')}"
    for loader in (SourceLoader(DictReader({name: data}), [name]), SourceLoader(DictReader({"": data}), suffix=suffix)):
        assert Store(loader).load().get("a.b") == 1
    assert Store(StreamLoader(io.BytesIO(data), suffix)).load().load().get("a.b") == 1  # a stream is read once


def test_a_parser_of_your_own_and_text_of_a_stream() -> None:
    parser = SourceLoader(DictReader({"": b"a=1;b=2"}), parser=lambda data: dict(
        pair.split("=") for pair in data.decode().split(";")
    ))  # fmt: skip
    assert Store(parser).load().snapshot().as_dict() == {"a": "1", "b": "2"}
    assert Store(StreamLoader(io.StringIO("A=1\n"), "env")).load().get("A", 0) == 1


def test_a_source_without_a_format_names_what_to_pass() -> None:
    message = r"memory://test: has no suffix of a config. Pass suffix=, one of yaml, .+, text, or key=\.$"
    with pytest.raises(ConfigError, match=message):
        Store(SourceLoader(DictReader({"": b"1"}))).load()
    with pytest.raises(UserError, match=r"memory://test: the format 'xml' is not known. Use one of yaml"):
        SourceLoader(DictReader({}), suffix="xml")
    assert Store(SourceLoader(DictReader({"": b"1"}), key="n")).load().get("n", 0) == 1
    with pytest.raises(ConfigError, match=r"memory://test/n: is not UTF-8 \(byte 0\). Save it as UTF-8."):
        Store(SourceLoader(DictReader({"n": b"\xff"}), ["n"])).load()


LONG = 120.0  # seconds that an event may take on a busy machine


@pytest.mark.parametrize("kind", ["http", "consul", "etcd"])
def test_a_server_is_watched_through_an_outage(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def messages() -> list[str]:
        return [message for message in caplog.messages if "The store keeps the last good values." in message]

    def stays(reason: str) -> bool:
        return any(reason in message for message in messages())

    with double(kind, {"train.yaml": b"lr: 1\n"}) as server:
        loader = SourceLoader(f"{server.url}/conf/train.yaml", poll_seconds=0.05, name="server")
        with Store(loader).load_watch() as store:
            server.put("conf/train.yaml", b"lr: 2\n")
            wait_until(lambda: store.get("lr") == 2, LONG)
            server.put("conf/train.yaml", b"lr: [")
            wait_until(lambda: stays("is not valid YAML"), LONG)
            assert store.metrics.stats("root", "server").counts["failure"]
            server.status = 503
            wait_until(lambda: stays("answered 503") or stays("Service Unavailable"), LONG)
            server.put("conf/train.yaml", None)
            server.status = 200
            wait_until(lambda: stays("does not exist"), LONG)
            assert store.get("lr") == 2
            server.put("conf/train.yaml", b"lr: 3\n")
            wait_until(lambda: store.get("lr") == 3, LONG)
    assert len(messages()) >= 3
    assert all(f"{server.url}/conf/train.yaml" in message and "\n" not in message for message in messages())


def test_a_server_that_is_down_stops_only_what_requires_it() -> None:
    address = "http://127.0.0.1:9/c.yaml"
    with pytest.raises(ConfigError, match=r"^http://127.0.0.1:9/c.yaml: .+\.$"):
        Store(SourceLoader(address)).load()
    assert Store(FunctionLoader({"lr": 1}), SourceLoader(address, required=False)).load().get("lr") == 1


def test_values_of_vault_are_hidden_everywhere() -> None:
    reader = DictReader({"": b'{"token_of_db": "canary-7yQ4"}'}, name="vault://host/secret/db")
    store = Store(SourceLoader(reader, key="db")).load()
    assert store.get("db.token_of_db") == "canary-7yQ4"
    assert hide_secrets("a canary-7yQ4 sings") == "a *** sings"
    with pytest.raises(ConfigError, match=r"^db.token_of_db=\*\*\*: is not a number"):
        store.must_get("db.token_of_db", float)


def test_environment_variables_are_named_by_prefix_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "APP_OPTIMIZER__LR", "0.1")
    monkeypatch.setitem(os.environ, "APP_STEPS", "1, 2")
    monkeypatch.setitem(os.environ, "OTHER", "x")
    store = Store(EnvironmentLoader("APP_", {"OTHER": "logger.project", "UNSET": "no"})).load()
    assert store.get("optimizer.lr", 1.0) == 0.1
    assert store.get("steps", kind=list[int]) == [1, 2]
    assert store.snapshot().as_dict() == {
        "optimizer": {"lr": "0.1"}, "steps": "1, 2", "logger": {"project": "x"},
    }  # fmt: skip
    with pytest.raises(UserError, match=r"^environment: has no prefix and no variables. Pass one of them.$"):
        EnvironmentLoader()


def test_a_relative_address_of_a_folder_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text("a: 1\n")
    assert Store(SourceLoader("conf", ["a.yaml"])).load().get("a") == 1


@pytest.mark.slow
def test_a_real_etcd_is_watched_and_may_be_restarted(tmp_path: Path) -> None:
    with real.etcd(tmp_path) as port:
        client = pytest.importorskip("etcd3gw").Etcd3Client("127.0.0.1", port, api_path="/v3/")
        client.put("prod/train.yaml", "lr: 1\n")
        client.put("prod/steps", "7")
        address = f"etcd://127.0.0.1:{port}/prod"
        store = Store(
            SourceLoader(address, ["train.yaml", "steps"], poll_seconds=0.2), SourceLoader(f"{address}/train.yaml")
        )
        store.load_watch()
        client.put("prod/train.yaml", "lr: 2\n")
        wait_until(lambda: store.get("lr") == 2)
        client.put("prod/steps", "8")
        wait_until(lambda: store.get("steps", 0) == 8)
    with store, real.etcd(tmp_path, port):
        wait_until(lambda: store.metrics.stats("root", f"{address}/train.yaml").counts["failure"])
        assert store.get("lr") == 2
        client.put("prod/train.yaml", "lr: 3\n")
        wait_until(lambda: store.get("lr") == 3)


@pytest.mark.slow
def test_a_real_vault_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with real.vault(tmp_path) as url:
        client = pytest.importorskip("hvac").Client(url=url, token="root")
        client.secrets.kv.v2.create_or_update_secret("db", {"user": "canary-hw3-one"})
        monkeypatch.setenv("VAULT_ADDR", url)
        monkeypatch.setenv("VAULT_TOKEN", "root")
        with Store(SourceLoader("vault:///secret/db", key="db", poll_seconds=0.1)).load_watch() as store:
            assert store.must_get("db.user", str) == "canary-hw3-one"
            client.secrets.kv.v2.create_or_update_secret("db", {"user": "canary-hw3-two"})
            wait_until(lambda: store.get("db.user") == "canary-hw3-two")
            assert hide_secrets("canary-hw3-one canary-hw3-two") == "*** ***"
