"""Read keys of Consul's KV store through its HTTP API, and wait for changes with its blocking queries."""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from fulgurite.core.formatting import parse_count
from fulgurite.core.redact import register_secret
from fulgurite.sources.reader import Fetched, Names, ReadOptions
from fulgurite.sources.transports.http import HttpReader

PORT = 8500
_OVERHEAD = 4096  # bytes of JSON around a value


class ConsulReader(HttpReader):
    """Reader of the keys below a prefix: `consul://host:port/prefix`, `?dc=<name>` for a datacenter.

    The token comes from `CONSUL_HTTP_TOKEN`.
    """

    def __init__(self, address: str, options: ReadOptions) -> None:
        parts = urlsplit(address)
        scheme = "https" if options.tls else "http"
        super().__init__(f"{scheme}://{parts.hostname}:{parts.port or PORT}/v1/kv", options)
        self.name = f"consul://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._prefix = parts.path.strip("/")
        self._query = urlencode(parse_qsl(parts.query))
        self._token = unquote(parts.password or "") or os.environ.get("CONSUL_HTTP_TOKEN", "")
        if self._token:
            register_secret(self._token)
        # base64 within JSON
        self._limit = options.max_bytes * 4 // 3 + _OVERHEAD

    def _authorization(self) -> dict[str, str]:
        return {"X-Consul-Token": self._token} if self._token else {}

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    def _ask(self, path: str, key: str, query: Mapping[str, str], seconds: float = 0.0) -> tuple[Any, str]:
        """Return the content of an answer, None for a key that is not there, and the index for the next question."""
        text = "&".join(part for part in (self._query, urlencode(query)) if part)
        found = self.get(key or "/", query=text, place=path, seconds=seconds, limit=self._limit, keep_absent=True)
        assert found is not None
        body, headers = found
        index = headers.get("x-consul-index", "0")
        if headers.get("x-status") == "404":
            return None, index
        try:
            return json.loads(body), index
        except ValueError as error:
            raise self.failure(path, "answered what is not an answer of Consul", "Correct its address") from error

    def _read(self, path: str) -> Fetched | None:
        return self._current(path)[0]

    def _current(
        self, path: str, query: Mapping[str, str] | None = None, seconds: float = 0.0
    ) -> tuple[Fetched | None, str]:
        found, index = self._ask(path, self._key(path), query or {}, seconds)
        try:
            entry = found[0] if found else None
            data = None if entry is None else Fetched(b64decode(entry["Value"] or ""), str(entry["ModifyIndex"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self.failure(path, "answered what is not an answer of Consul", "Correct its address") from error
        return self._checked(path, data), index

    def _list(self, path: str) -> Names:
        prefix = f"{self._key(path)}/" if self._key(path) else ""
        found, _ = self._ask(path, prefix, {"keys": "", "separator": "/"})
        return [name for each in found or () if (name := str(each).removeprefix(prefix)).strip("/")]

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        """Wait with blocking queries, see `Reader.wait`."""
        end, path, seconds = time.monotonic() + timeout, self._clean(path), 0.0
        query: dict[str, str] = {}
        while not self._closed.is_set():
            found, index = self._retried(lambda: self._current(path, query, seconds))  # noqa: B023 - called at once
            if (found.version if found else None) != version:
                return True
            left = end - time.monotonic()
            if left <= 0:
                break
            seconds = min(left, self.options.poll_seconds)  # then `close` is noticed
            is_valid = bool(parse_count(index))  # else the server is asked without waiting
            query = {"index": index, "wait": f"{max(int(seconds * 1000), 1)}ms"} if is_valid else {}
            if not is_valid:
                self._closed.wait(seconds)
        return False
