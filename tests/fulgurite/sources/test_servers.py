"""etcd, Consul and object stores: what a reader returns, waits for and refuses; the real ones in slow tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulgurite.sources.reader import ReadOptions, SourceError, open_reader
from tests.support.http_server import closed_port, silent_port
from tests.support.servers import real
from tests.support.servers.doubles import ConsulDouble, Double, EtcdDouble, WebDouble, reply

QUICK = ReadOptions(timeout=1.0, max_retry=1, retry_delay=0.0, poll_seconds=0.3, max_bytes=1000)
KINDS = {"consul": ConsulDouble, "etcd": EtcdDouble}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONSUL_HTTP_TOKEN", "ETCDCTL_USER"):
        monkeypatch.delenv(name, raising=False)


def later(change: Callable[[], object]) -> None:
    threading.Timer(0.05, change).start()


@pytest.mark.parametrize("kind", KINDS)
def test_keys_lists_and_what_is_not_there(kind: str) -> None:
    with KINDS[kind]({"conf/model/a.yaml": b"a: 1", "conf/x.yaml": b"", "confer/y": b"1", "top": b"2"}) as server:
        reader = open_reader(f"{server.url}/conf", QUICK)
        found = reader.read("model/a.yaml")
        assert found is not None
        assert (found.data, found.version) == (b"a: 1", "1")
        empty = reader.read("x.yaml")
        assert empty is not None
        assert empty.data == b""
        assert reader.read("none") is None
        assert reader.list("") == ["model/", "x.yaml"]
        assert reader.list("model") == ["a.yaml"]
        assert reader.list("none") == []
        assert open_reader(server.url, QUICK).list("") == ["conf/", "confer/", "top"]
        assert open_reader(f"{server.url}/conf/x.yaml", QUICK).read("") == empty


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_returns_at_a_change_and_not_before(kind: str) -> None:
    with KINDS[kind]({"c/a": b"1"}) as server:
        reader = open_reader(f"{server.url}/c", QUICK)
        found = reader.read("a")
        assert found is not None
        assert not reader.wait("a", found.version, 0.05)
        later(lambda: server.put("c/a", b"2"))
        assert reader.wait("a", found.version, 5.0)
        later(lambda: server.put("c/new", b"2"))
        assert reader.wait("new", None, 5.0)
        newer = reader.read("a")
        assert newer is not None
        later(lambda: server.put("c/a", None))
        assert reader.wait("a", newer.version, 5.0)
        later(reader.close)
        assert not reader.wait("a", None, 60.0)


def test_a_change_is_reported_without_polling() -> None:
    options = ReadOptions(poll_seconds=30.0)
    for kind, double in KINDS.items():
        with double({"a": b"1"}) as server:
            reader, num_requests = open_reader(server.url, options), 0
            later(lambda server=server: server.put("a", b"2"))  # type: ignore[misc]
            start = time.monotonic()
            assert reader.wait("a", "1", 20.0), kind
            assert time.monotonic() - start < 10.0
            num_requests = len(server.requests)
        assert num_requests <= 3, server.requests


@pytest.mark.parametrize("scheme", ["http", "etcd", "consul"])
@pytest.mark.parametrize(
    ("status", "problem", "num_requests"),
    [(500, r"(answered 500|failed \(.*\)) \(2 requests\)", 2), (403, r"refused the request|failed \(", 0)],
)
def test_a_server_that_refuses_is_one_line(scheme: str, status: int, problem: str, num_requests: int) -> None:
    kinds: dict[str, type[Double]] = {**KINDS, "http": WebDouble}
    with kinds[scheme]({"c/a": b"1"}, status=status) as server:
        with pytest.raises(SourceError, match=problem) as caught:
            open_reader(f"{server.url}/c", QUICK).read("a")
        assert str(caught.value).startswith(f"{server.url}/c/a: ")
        assert "\n" not in str(caught.value)
        assert not num_requests or len(server.requests) == num_requests


@pytest.mark.parametrize("scheme", ["http", "etcd", "consul"])
def test_a_server_that_is_down_silent_or_another_one_is_one_line(scheme: str) -> None:
    for options, problem in ((QUICK, r"failed \(.*Connection refused\) \(2 requests\)"),):
        with pytest.raises(SourceError, match=problem):
            open_reader(f"{scheme}://127.0.0.1:{closed_port()}/c", options).read("a")
    with silent_port() as port, pytest.raises(SourceError, match=r"did not answer within 0\.2 s"):
        open_reader(f"{scheme}://127.0.0.1:{port}/c#timeout=0.2&max_retry=0").read("a")
    if scheme != "http":
        with WebDouble({"v1/kv/c/a": b"<html>", "v3/kv/range": b"<html>"}) as server:
            address = f"{scheme}://127.0.0.1:{server.port}/c#max_retry=0"
            with pytest.raises(SourceError, match="answered what is not an answer of"):
                open_reader(address).read("a")


def test_a_server_that_fails_once_is_asked_again() -> None:
    class Flapping(WebDouble):
        def answer(self, handler: Any, body: bytes) -> None:
            if len(self.requests) % 2:
                handler.send_error(503)
            else:
                super().answer(handler, body)

    with Flapping({"a": b"1"}) as server:
        found = open_reader(server.url, QUICK).read("a")
        assert found is not None
        assert len(server.requests) == 2


@pytest.mark.parametrize("scheme", ["http", "etcd", "consul", "memory", "file"])
def test_a_value_over_the_bound_is_refused(scheme: str, tmp_path: Path) -> None:
    large, addresses = b"x" * 1001, [""]
    if scheme == "memory":
        import fsspec

        fsspec.filesystem("memory").pipe({"/bound/a": large})
        addresses = ["memory://bound"]
    elif scheme == "file":
        (tmp_path / "a").write_bytes(large)
        addresses = [str(tmp_path)]
    kinds: dict[str, type[Double]] = {**KINDS, "http": WebDouble}
    with kinds.get(scheme, WebDouble)({"c/a": large, "c/b": b"x" * 20_000}) as server:
        if scheme in kinds:
            addresses = [f"{server.url}/c"]
        for address in addresses:
            with pytest.raises(SourceError, match=r"/a: has more than 1,000 bytes\. Store less in it, or"):
                open_reader(address, QUICK).read("a")
        if scheme in kinds:
            with pytest.raises(SourceError, match="/b: has more than 1,000 bytes"):
                open_reader(addresses[0], QUICK).read("b")


@pytest.mark.parametrize("scheme", ["http", "etcd"])
def test_an_endless_value_is_cut_at_the_bound(scheme: str) -> None:
    sent = [0]

    class Endless(WebDouble):
        def answer(self, handler: Any, body: bytes) -> None:
            handler.send_response(200)
            handler.end_headers()
            for _ in range(1 << 14):  # 1 GB
                handler.wfile.write(b"x" * (1 << 16))
                sent[0] += 1 << 16

    with Endless({}) as server, pytest.raises(SourceError, match="has more than 1,000 bytes"):
        open_reader(f"{scheme}://127.0.0.1:{server.port}", QUICK).read("a")
    assert sent[0] < 1 << 26


def test_a_web_server_with_etags_sends_an_unchanged_value_once() -> None:
    sent: list[str] = []

    class Tagged(WebDouble):
        def answer(self, handler: Any, body: bytes) -> None:
            tag = f'"{self.files["a"].decode()}"'
            is_known = handler.headers.get("If-None-Match") == tag
            sent.append("" if is_known else tag)
            reply(handler, b"" if is_known else self.files["a"], 304 if is_known else 200, ETag=tag)

    with Tagged({"a": b"1"}) as server:
        reader = open_reader(server.url, ReadOptions(poll_seconds=0.02))
        found = reader.read("a")
        assert found is not None
        assert found.version == '"1"'
        assert not reader.wait("a", found.version, 0.1)
        later(lambda: server.put("a", b"2"))
        assert reader.wait("a", found.version, 5.0)
    assert [tag for tag in sent if tag] == ['"1"', '"2"']


def test_a_wrong_token_of_consul_is_one_line_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with ConsulDouble({"a": b"1"}) as server:
        server.token = "right"
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "right")
        assert open_reader(server.url, QUICK).read("a") is not None
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", "canary-wrong")
        with pytest.raises(SourceError, match=r"/a: refused the request \(403\)\. Correct the token") as caught:
            open_reader(server.url, QUICK).read("a")
        assert "canary" not in str(caught.value)


def test_a_token_of_etcd_that_expires_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with EtcdDouble({"a": b"1"}) as server:
        server.user = ("me", "canary-right")
        with pytest.raises(SourceError, match="/a: refused the request"):
            open_reader(server.url, QUICK).read("a")
        monkeypatch.setenv("ETCDCTL_USER", "me:canary-right")
        reader = open_reader(server.url, QUICK)
        assert reader.read("a") is not None
        server.tokens.clear()
        assert reader.read("a") is not None
        monkeypatch.setenv("ETCDCTL_USER", "me:canary-wrong")
        with pytest.raises(SourceError, match=r"refused the request \(etcdserver: authentication failed") as caught:
            open_reader(server.url, QUICK).read("a")
        assert "canary" not in str(caught.value)


def test_an_answer_of_consul_that_is_torn_is_one_line() -> None:
    class Torn(ConsulDouble):
        def answer(self, handler: Any, body: bytes) -> None:
            reply(handler, json.dumps([{"Key": "a", "Value": 1}]).encode(), X_Consul_Index="1")

    with Torn({}) as server, pytest.raises(SourceError, match="answered what is not an answer of Consul"):
        open_reader(server.url, ReadOptions(max_retry=0)).read("a")


def test_a_driver_or_a_scheme_that_is_missing_is_one_line() -> None:
    for address, problem in (
        ("gs://bucket", "its driver is not installed .*gcsfs"),
        ("nothing://h", "nothing:// is not known"),
    ):
        with pytest.raises(SourceError, match=problem):
            open_reader(address).read("a")


@pytest.mark.slow
def test_a_real_etcd_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with real.etcd(tmp_path) as port:
        import etcd3gw

        client = etcd3gw.Etcd3Client("127.0.0.1", port, api_path="/v3/")
        client.put("c/a", b"\xff1")
        reader = open_reader(f"etcd://127.0.0.1:{port}/c", QUICK)
        found = reader.read("a")
        assert found is not None
        assert found.data == b"\xff1"
        later(lambda: client.put("c/a", "2"))
        assert reader.wait("a", found.version, 20.0)
    with pytest.raises(SourceError, match="Connection refused"):
        reader.read("a")
    with real.etcd(tmp_path, port):
        again = reader.read("a")
        assert again is not None
        assert again.data == b"2"
