"""Read keys of etcd through its JSON gateway, by etcd3gw."""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from fulgurite.core.redact import register_secret
from fulgurite.sources.reader import BaseReader, Fetched, Names, ReadOptions, SourceError, need_library
from fulgurite.sources.transports.session import TooLargeError, bounded_session, reason_of

PORT = 2379
T = TypeVar("T")


class EtcdReader(BaseReader):
    """Reader of the keys below a prefix: `etcd://host:port/prefix`.

    The user comes from the address or from `ETCDCTL_USER=<name>:<password>`; with `#tls=true` the files of
    `ETCDCTL_CACERT`, `ETCDCTL_CERT` and `ETCDCTL_KEY` are used, as etcdctl does.
    """

    def __init__(self, address: str, options: ReadOptions) -> None:
        super().__init__(address, options)
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or PORT
        self._prefix = parts.path.strip("/")
        user, _, password = os.environ.get("ETCDCTL_USER", "").partition(":")
        self._user, self._password = unquote(parts.username or user), unquote(parts.password or password)
        if self._password:
            register_secret(self._password)

    @cached_property
    def _client(self) -> Any:
        etcd3gw = need_library("etcd3gw", "sources", self.name)
        session = bounded_session(self.options, self.name)
        if self.options.tls:
            session.verify = os.environ.get("ETCDCTL_CACERT") or True
            if "ETCDCTL_CERT" in os.environ:
                session.cert = (os.environ["ETCDCTL_CERT"], os.environ.get("ETCDCTL_KEY"))
        protocol = "https" if self.options.tls else "http"
        # the path as a constant: otherwise the client asks for the version first
        return etcd3gw.Etcd3Client(
            self._host, self._port, protocol, timeout=self.options.timeout, api_path="/v3/", session=session
        )

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    def _read(self, path: str) -> Fetched | None:
        return self._current(path)[0]

    def _current(self, path: str) -> tuple[Fetched | None, int]:
        """Return the data at a path, and the revision of the store."""
        found = self._post(path, "kv/range", {"key": _encoded(self._key(path))})
        revision = int(found.get("header", {}).get("revision", 0))
        for entry in found.get("kvs", ()):
            return Fetched(b64decode(entry.get("value", "")), str(entry["mod_revision"])), revision
        return None, revision

    def _list(self, path: str) -> Names:
        prefix = f"{self._key(path)}/" if self._key(path) else ""
        end = f"{prefix[:-1]}0" if prefix else "\0"  # the sign after the slash; a zero byte stands for all keys
        request = {"key": _encoded(prefix or "\0"), "range_end": _encoded(end), "keys_only": True}
        names = set()
        for entry in self._post(path, "kv/range", request).get("kvs", ()):
            name, slash, _ = b64decode(entry["key"]).decode("utf-8", "replace").removeprefix(prefix).partition("/")
            names.add(name + slash)
        return [name for name in names if name.strip("/")]

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        """Watch the key from the revision of the last read on, so that no change is missed, see `Reader.wait`."""
        end, path = time.monotonic() + timeout, self._clean(path)
        while not self._closed.is_set():
            found, revision = self._retried(lambda: self._current(path))
            if (found.version if found else None) != version:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            seconds = min(left, self.options.poll_seconds)  # then `close` is noticed
            self._retried(lambda: self._watch(path, revision + 1, seconds))  # noqa: B023 - called at once
        return False

    def _watch(self, path: str, revision: int, seconds: float) -> None:
        """Return after a change of the key since a revision, at the latest after some seconds."""
        create = {"key": _encoded(self._key(path)), "start_revision": revision}
        end = time.monotonic() + seconds

        def watch() -> None:
            import requests

            try:
                with self._client.session.post(
                    self._client.get_url("watch"),
                    json={"create_request": create},
                    stream=True,
                    timeout=(self.options.timeout, max(seconds, 0.01)),
                ) as response:
                    for line in response.iter_lines(chunk_size=1):
                        answer = json.loads(line).get("result", {})
                        if answer.get("events") or answer.get("canceled") or time.monotonic() > end:
                            return
            except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
                if time.monotonic() < end:
                    raise

        self._guarded(path, watch)

    def _post(self, path: str, url: str, content: dict[str, Any]) -> dict[str, Any]:
        def post() -> dict[str, Any]:
            if self._user and "Authorization" not in self._client.session.headers:
                self._log_in()
            try:
                answer = self._client.post(self._client.get_url(url), json=content)
            except Exception as error:
                if not self._user or "auth token" not in str(getattr(error, "detail_text", "")):
                    raise
                self._log_in()  # the token has expired
                answer = self._client.post(self._client.get_url(url), json=content)
            if not isinstance(answer, dict):
                raise ValueError("the answer is not that of etcd")
            return answer

        return self._guarded(path, post)

    def _log_in(self) -> None:
        self._client.session.headers.pop("Authorization", None)
        login = {"name": self._user, "password": self._password}
        self._client.session.headers["Authorization"] = self._client.post(
            self._client.get_url("auth/authenticate"), json=login
        )["token"]

    def _guarded(self, path: str, request: Callable[[], T]) -> T:
        """Return what a request returns; its errors name the source and the key."""
        try:
            return request()
        except TooLargeError as error:
            raise self.too_large(path) from error
        except SourceError:
            raise
        except Exception as error:
            detail = str(getattr(error, "detail_text", None) or "")
            is_json = detail.startswith("{")  # else it is of the connection, and has the address
            if is_json and ("auth" in detail or "permission denied" in detail or "user name is empty" in detail):
                problem = f"refused the request ({_message(detail)})"
                raise SourceError(self.place(path), problem, "Correct ETCDCTL_USER=<name>:<password>") from error
            is_of_requests = isinstance(error, OSError) and "JSON" not in type(error).__name__
            if isinstance(error, (KeyError, ValueError, TypeError)) and not is_of_requests:
                raise self.failure(path, "answered what is not an answer of etcd", "Correct its address") from error
            cause = error.__context__ or error  # etcd3gw keeps only the text
            reason = f"failed ({_message(detail)})" if is_json else reason_of(cause, self.options.timeout)
            raise self.failure(path, reason) from error


def _message(detail: str) -> str:
    try:
        return str(json.loads(detail)["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(detail.split())[:80]


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()
