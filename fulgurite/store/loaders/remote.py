"""Load and watch any source that `fulgurite.sources` reads: HTTP, etcd, Consul, Vault, readers of yours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fulgurite.core.errors import UserError
from fulgurite.core.redact import register_secret
from fulgurite.sources.formats import SUFFIXES, parse
from fulgurite.sources.reader import Reader, ReadOptions, SourceError, open_reader
from fulgurite.store.loaders.basic import Loader
from fulgurite.store.values.layers import leaves_of

WAIT_SECONDS = 5.0  # one wait of a source; `close` wakes it where the reader can
FORMATS = (*(suffix.lstrip(".") for suffix in SUFFIXES), "text")
Parser = Callable[[bytes], Mapping[str, Any]]


class SourceLoader(Loader):
    """Loads the config at an address, or several values below it, and watches them.

    Args:
        source: An address such as `etcd://host:2379/prod/train.yaml`, or an open reader.
        paths: Values below the address. One with a suffix of a config is parsed; any other is text, and its path is its
            key: `optimizer/lr` sets `optimizer.lr`. Empty: the address itself.
        suffix: Format of the address and of all paths: yaml, json, toml, env; or `text` for values without a format.
            None: the suffix of each name; JSON for Vault.
        parser: Parses the data in place of `suffix`.
        key: Dotted key below which the values stand; empty: at the top.
        watch: Whether to wait for changes once the store watches.
        poll_seconds: Between two requests to a source that reports no changes itself.
        options: How to read; retries are those of the loader.
        name: For messages and metrics; None: the address without credentials.
        loader_options: See `Loader`.

    Raises:
        UserError: The address or the suffix is invalid, or the library of the source is not installed.

    Example:
        >>> SourceLoader("consul://localhost:8500/prod", paths=["train.yaml", "optimizer/lr"], required=False)
    """

    is_polled = False

    def __init__(
        self,
        source: str | Reader,
        paths: Sequence[str] = (),
        *,
        suffix: str | None = None,
        parser: Parser | None = None,
        key: str = "",
        watch: bool = True,
        poll_seconds: float = 2.0,
        options: ReadOptions | None = None,
        name: str | None = None,
        **loader_options: Any,
    ) -> None:
        read_options = replace(options or ReadOptions(), max_retry=0, stop_on_failure=True, poll_seconds=poll_seconds)
        self._reader = open_reader(source, read_options) if isinstance(source, str) else source
        super().__init__(name or self._reader.name, poll_seconds=poll_seconds, **loader_options)
        self._paths, self._parser, self._key, self._watch = (*paths,) or ("",), parser, key, watch
        self._is_secret = self._reader.name.startswith("vault://")
        self._suffix = (suffix or ("json" if self._is_secret else "")).lstrip(".")
        if self._suffix not in {"", *FORMATS}:
            raise UserError(f"{self.name}: the format {suffix!r} is not known. Use one of {', '.join(FORMATS)}.")
        self.is_text = parser is None and any(self._format(path) in {"text", "env"} for path in self._paths)
        self._versions: dict[str, str | None] = {}  # as they were read last, also where they were refused then

    @property
    def is_watched(self) -> bool:
        """Whether to wait for changes."""
        return self._watch

    def load(self) -> Mapping[str, Any]:
        """Return the parsed values of all paths.

        Raises:
            UserError: The source failed, a required path is missing, or data cannot be parsed.
        """
        found: dict[str, Any] = {}
        problems: list[str] = []
        for path in self._paths:  # each is read, so that one that is missing hides no other
            fetched = self._reader.read(path)
            self._versions[path] = fetched.version if fetched else None
            if fetched is not None:
                found.update(self._values(path, fetched.data))
            elif self.required:
                problems.append(f"{self._place(path)}: does not exist. Create it, or pass required=False.")
        if problems:
            raise UserError("\n".join(problems))
        return found

    def wait(self, stop: threading.Event) -> bool:
        """Block until a version differs from the one that was read last."""
        if len(self._paths) == 1:
            return self._differs(self._paths[0], WAIT_SECONDS) and not stop.is_set()
        if any(self._differs(path, 0.0) for path in self._paths):
            return True
        stop.wait(self.poll_seconds)
        return False

    def _differs(self, path: str, seconds: float) -> bool:
        return self._reader.wait(path, self._versions.get(path), seconds)

    def close(self) -> None:
        """Close the reader, which wakes its `wait`."""
        self._reader.close()

    def _place(self, path: str) -> str:
        return f"{self._reader.name.rstrip('/')}/{path}" if path else self._reader.name

    def _format(self, path: str) -> str:
        place = self._place(path).lower()
        return self._suffix or next((end.lstrip(".") for end in SUFFIXES if place.endswith(end)), "text")

    def _values(self, path: str, data: bytes) -> dict[str, Any]:
        """Return dotted keys to values."""
        place = self._place(path)
        suffix = self._format(path)
        if self._parser is not None:
            values = leaves_of(self._parser(data), place)
        elif suffix != "text":
            values = leaves_of(parse(data, f".{suffix}", place), place)
        elif not path and not self._key:
            raise SourceError(place, "has no suffix of a config", f"Pass suffix=, one of {', '.join(FORMATS)}, or key=")
        else:
            values = {path.strip("/").replace("/", "."): _text(data, place)}
        if self._is_secret:
            for value in values.values():
                register_secret(value)
        return {".".join(filter(None, (self._key, key))): value for key, value in values.items()}


def _text(data: bytes, place: str) -> str:
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SourceError(place, f"is not UTF-8 (byte {error.start})", "Save it as UTF-8") from error
