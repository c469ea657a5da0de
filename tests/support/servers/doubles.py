"""Doubles in this process: a web server with an index of each folder, Consul's KV API, etcd's JSON gateway.

Each serves `files`, path to bytes, which may be changed while it runs, and notes its requests.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_server import LoopbackServer


class Double(LoopbackServer):
    """What the doubles share.

    Args:
        files: Path to content.
        status: Answers every request with this status instead, if it is not 200.
        port: 0 takes a free port.
        certificate: A file with key and certificate; then it speaks https.

    Attributes:
        requests: `METHOD path?query` of each request, in order.
        seen: The headers and the body of each request.
    """

    scheme = "http"

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        *,
        status: int = 200,
        port: int = 0,
        certificate: Path | None = None,
    ) -> None:
        self.files, self.status = dict(files or {}), status
        self.requests: list[str] = []
        self.seen: list[bytes] = []
        self.revision = 1
        self.revisions: dict[str, int] = dict.fromkeys(self.files, 1)
        self.changed = threading.Condition()
        super().__init__(self._handler(), port, certificate)
        self.port = self._server.server_port
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"

    def put(self, path: str, data: bytes | None) -> None:
        """Set a value, or remove it."""
        with self.changed:
            self.revision += 1
            if data is None:
                self.files.pop(path, None)
                self.revisions.pop(path, None)
            else:
                self.files[path], self.revisions[path] = data, self.revision
            self.changed.notify_all()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer one request."""
        raise NotImplementedError

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append(bytes(self.headers) + body)
                with contextlib.suppress(OSError):
                    if outer.status != 200:
                        self.send_error(outer.status)
                    else:
                        outer.answer(self, body)

            do_POST = do_GET  # noqa: N815 - the name is http.server's

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
                pass

        return Handler


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: Any) -> None:
    """Send a response."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class WebDouble(Double):
    """A web server; without `index` it lists no folder, as many do."""

    index = True

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = unquote(urlsplit(handler.path).path).strip("/")
        if path in self.files:
            reply(handler, self.files[path], Content_Type="text/plain")
            return
        prefix = f"{path}/" if path else ""
        below = [each.removeprefix(prefix) for each in self.files if each.startswith(prefix)]
        names = {name + slash for name, slash, _ in (each.partition("/") for each in below)}
        if not names or not self.index:
            reply(handler, b"", 404)
            return
        page = "".join(f'<li><a href="{name}">{name}</a>' for name in ("../", *sorted(names)))
        reply(handler, page.encode(), Content_Type="text/html; charset=utf-8")


class ConsulDouble(Double):
    """Consul's KV API as documented: GET of a key, of the keys below one, and blocking queries.

    Attributes:
        token: Requests with another token are refused; None takes all.
    """

    scheme = "consul"
    token: str | None = None

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        parts = urlsplit(handler.path)
        query, key = parse_qs(parts.query, keep_blank_values=True), unquote(parts.path.removeprefix("/v1/kv/"))
        if self.token is not None and handler.headers.get("X-Consul-Token") != self.token:
            reply(handler, b"Permission denied", 403)
            return
        if "index" in query and (index := int(query["index"][0])) > 0:
            end = time.monotonic() + float(query["wait"][0].removesuffix("ms")) / 1000
            with self.changed:
                while self.revision <= index and (left := end - time.monotonic()) > 0:
                    self.changed.wait(left)
        headers: dict[str, Any] = {"X_Consul_Index": str(self.revision), "Content_Type": "application/json"}
        if "keys" in query:
            below = [each.removeprefix(key) for each in self.files if each.startswith(key)]
            names = sorted({key + name + slash for name, slash, _ in (each.partition("/") for each in below)})
            reply(handler, json.dumps(names).encode(), 200 if names else 404, **headers)
        elif key in self.files:
            value = b64encode(self.files[key]).decode()
            entry = [{"Key": key, "Value": value, "ModifyIndex": self.revisions[key], "Flags": 0, "LockIndex": 0}]
            reply(handler, json.dumps(entry).encode(), **headers)
        else:
            reply(handler, b"", 404, **headers)


class EtcdDouble(Double):
    """The JSON gateway of etcd: range, watch, authenticate.

    Attributes:
        user: Name and password that it asks for; None takes all requests.
        tokens: Valid ones; clear them, and all have expired.
    """

    scheme = "etcd"
    user: tuple[str, str] | None = None

    def __init__(self, files: dict[str, bytes] | None = None, *, status: int = 200, port: int = 0) -> None:
        super().__init__(files, status=status, port=port)
        self.tokens: set[str] = set()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        content = json.loads(body or b"{}")
        if handler.path == "/v3/auth/authenticate":
            if (content["name"], content["password"]) != self.user:
                _etcd_error(handler, 400, "etcdserver: authentication failed, invalid user ID or password")
                return
            self.tokens.add(token := f"token-{len(self.requests)}")
            reply(handler, json.dumps({"token": token}).encode())
        elif self.user is not None and handler.headers.get("Authorization") not in self.tokens:
            _etcd_error(handler, 401, "etcdserver: invalid auth token")
        elif handler.path == "/v3/watch":
            self._watch(handler, content["create_request"])
        else:
            reply(handler, json.dumps(self._range(content)).encode())

    def _range(self, content: dict[str, Any]) -> dict[str, Any]:
        key, end = (b64decode(content.get(name, "")).decode() for name in ("key", "range_end"))
        inside: Callable[[str], bool] = (
            (lambda each: each == key) if not end else lambda each: each >= key and end in {"\0", max(each, end)}
        )
        entries = [
            {
                "key": b64encode(each.encode()).decode(),
                "mod_revision": str(self.revisions[each]),
                **({} if content.get("keys_only") else {"value": b64encode(data).decode()}),
            }
            for each, data in sorted(self.files.items())
            if inside(each)
        ]
        return {"header": {"revision": str(self.revision)}, **({"kvs": entries} if entries else {})}

    def _watch(self, handler: BaseHTTPRequestHandler, create: dict[str, Any]) -> None:
        key, start = b64decode(create["key"]).decode(), int(create["start_revision"])
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b'{"result":{"created":true}}\n')
        handler.wfile.flush()
        before = self.revisions.get(key)
        with self.changed:
            while self.revisions.get(key) == before and self.revisions.get(key, 0) < start:
                if not self.changed.wait(0.5):
                    return
        handler.wfile.write(b'{"result":{"events":[{"kv":{}}]}}\n')


def _etcd_error(handler: BaseHTTPRequestHandler, status: int, message: str) -> None:
    reply(handler, json.dumps({"error": message, "code": 16, "message": message}).encode(), status)


@contextlib.contextmanager
def double(kind: str, files: dict[str, bytes]) -> Iterator[Double]:
    """Serve files below `conf/`, by `http`, `consul` or `etcd`."""
    kinds: dict[str, type[Double]] = {"http": WebDouble, "consul": ConsulDouble, "etcd": EtcdDouble}
    with kinds[kind]({f"conf/{path}": data for path, data in files.items()}) as server:
        yield server
