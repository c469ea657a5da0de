"""Read bytes from a source by its address, with retries, timeouts and a bound on the size.

A source answers with the data, or that there is none (None). Everything else is a `SourceError`, one line with the
source and the key. Retrying, bounds and paths are the same for all sources; each has its own transport.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import import_module
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from fulgurite.core.errors import UserError, printable
from fulgurite.core.rank_logging import RankedLogger

MAX_BYTES = 8 << 20
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?=://)")
_READERS = {  # scheme -> module and class; each module imports its library inside of functions
    "file": ("fulgurite.sources.transports.files", "FileReader"),
    "http": ("fulgurite.sources.transports.http", "HttpReader"),
    "https": ("fulgurite.sources.transports.http", "HttpReader"),
    "etcd": ("fulgurite.sources.transports.etcd", "EtcdReader"),
    "consul": ("fulgurite.sources.transports.consul", "ConsulReader"),
    "vault": ("fulgurite.sources.transports.vault", "VaultReader"),
}
_OTHER = ("fulgurite.sources.transports.object_store", "ObjectStoreReader")
T = TypeVar("T")
Names = list[str]  # in the classes below, `list` is a method

log = RankedLogger(__name__)


class SourceError(UserError):
    """A source failed, or its data cannot be used.

    Args:
        place: The source and the key, without credentials.
        problem: What is wrong.
        remedy: What to do.

    Attributes:
        is_transient: A second request may succeed.
    """

    def __init__(self, place: str, problem: str, remedy: str, *, is_transient: bool = False) -> None:
        self.place, self.problem, self.remedy, self.is_transient = place, problem, remedy, is_transient
        text = f"{place}: {problem}. {remedy}{'' if remedy.endswith(('.', '?')) else '.'}"
        super().__init__(printable(text))  # a server chooses parts of it

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(SourceError, is_transient=self.is_transient), (self.place, self.problem, self.remedy)


@dataclass(frozen=True)
class Fetched:
    """Data of a source and the version of it.

    Attributes:
        data: At most `max_bytes`.
        version: ETag, revision or sha256; differs where the data differs.
    """

    data: bytes
    version: str


@dataclass(frozen=True)
class ReadOptions:
    """How to read a source; `<address>#timeout=5&max_retry=2` sets them for one address.

    Attributes:
        timeout: Seconds for one request as a whole.
        max_retry: Further requests after one that failed on the way.
        retry_delay: Seconds between two requests.
        stop_on_failure: Whether a failing source of configs is final; False uses the copy of the last good fetch, with
            a warning. A reader raises in both cases.
        max_bytes: Largest size of one value.
        poll_seconds: Seconds between two requests of `wait`; etcd and Consul report a change at once.
        tls: Whether etcd or Consul speaks https.
    """

    timeout: float = 10.0
    max_retry: int = 2
    retry_delay: float = 0.5
    stop_on_failure: bool = True
    max_bytes: int = MAX_BYTES
    poll_seconds: float = 2.0
    tls: bool = False


class Reader(Protocol):
    """A source that was opened; may be used from several threads.

    Attributes:
        name: The address without credentials, for messages.
    """

    name: str

    def read(self, path: str) -> Fetched | None:
        """Return the data at a path below the address ("" is the address itself); None if the source has none.

        Raises:
            SourceError: The source failed, or the data is too large.
        """

    def list(self, path: str) -> Names:
        """Return the names below a path, those of folders with a slash at their end.

        Raises:
            SourceError: The source failed.
        """

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        """Block until the data at a path has another version, at most `timeout` seconds; return whether it has.

        Args:
            path: As for `read`.
            version: Of the data that the caller has; None if the source had none.
            timeout: Seconds.

        Raises:
            SourceError: The source failed.
        """

    def close(self) -> None:
        """Release what is open; a `wait` of another thread returns."""


class BaseReader:
    """What all readers do: keep to the options, retry, poll, name the source in errors.

    Args:
        address: As the user wrote it, without options.
        options: How to read.
    """

    def __init__(self, address: str, options: ReadOptions) -> None:
        self.address, self.options = address, options
        self.name = without_credentials(address)
        self._closed = threading.Event()

    def read(self, path: str) -> Fetched | None:
        """Return the data at a path, see `Reader.read`."""
        return self._retried(lambda: self._checked(path, self._read(self._clean(path))))

    def list(self, path: str) -> Names:
        """Return the names below a path, see `Reader.list`."""
        return self._retried(lambda: sorted(self._list(self._clean(path))))

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        """Poll until the version differs, see `Reader.wait`."""
        end = time.monotonic() + timeout
        while not self._closed.is_set():
            if self._differs(path, version):
                return True
            left = end - time.monotonic()
            if left <= 0:
                break
            self._closed.wait(min(self.options.poll_seconds, left))
        return False

    def close(self) -> None:
        """Stop every `wait`."""
        self._closed.set()

    def _read(self, path: str) -> Fetched | None:
        raise NotImplementedError

    def _list(self, path: str) -> Names:
        raise NotImplementedError

    def _differs(self, path: str, version: str | None) -> bool:
        found = self.read(path)
        return (found.version if found else None) != version

    def _clean(self, path: str) -> str:
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in parts or "\\" in path or "\0" in path:
            raise SourceError(self.place(path), "leaves the source", "Name a path below its address")
        return "/".join(parts)

    def place(self, path: str) -> str:
        """Return the source and the key for a message."""
        return f"{self.name.rstrip('/')}/{path.lstrip('/')}" if path else self.name

    def failure(self, path: str, problem: str, remedy: str = "Start it, or correct its address") -> SourceError:
        """Return the error of a request that may succeed the next time."""
        return SourceError(self.place(path), problem, remedy, is_transient=True)

    def too_large(self, path: str) -> SourceError:
        """Return the error of a value that is larger than `max_bytes`."""
        limit = f"has more than {self.options.max_bytes:,} bytes"
        return SourceError(self.place(path), limit, "Store less in it, or raise max_bytes")

    def _checked(self, path: str, found: Fetched | None) -> Fetched | None:
        if found is not None and len(found.data) > self.options.max_bytes:
            raise self.too_large(path)
        return found

    def _retried(self, request: Callable[[], T]) -> T:
        """Return what a request returns, after at most `max_retry` further ones."""
        failures = 0
        while True:
            try:
                return request()
            except SourceError as error:
                failures += 1
                if not error.is_transient or failures > self.options.max_retry:
                    if failures == 1:
                        raise
                    problem = f"{error.problem} ({failures} requests)"
                    raise SourceError(error.place, problem, error.remedy, is_transient=error.is_transient) from error
                log.debug("%s", error)
            if self._closed.wait(self.options.retry_delay):
                raise self.failure("", "was closed", "Open it again")


def open_reader(address: str, options: ReadOptions | None = None) -> Reader:
    """Return a reader of an address; nothing is requested before its first use.

    Args:
        address: A path, or a URL: `file`, `http`, `https`, `etcd`, `consul`, `vault`, or one of fsspec, such as `s3`.
            Options may follow it: `https://host/configs#timeout=5`.
        options: How to read, where the address sets nothing.

    Raises:
        SourceError: The address or an option of it is invalid, or a library is not installed.
    """
    plain, options = split_options(address, options or ReadOptions())
    found = SCHEME.match(plain)
    scheme = found[0].lower() if found else "file"
    module, name = _READERS.get(scheme, _OTHER)
    reader: Reader = getattr(import_module(module), name)(plain, options)
    return reader


def split_options(address: str, options: ReadOptions) -> tuple[str, ReadOptions]:
    """Return an address without the options after its `#`, and the options with them.

    Raises:
        SourceError: An option is unknown or has a value of the wrong type.
    """
    plain, _, fragment = address.partition("#")
    kinds = {field.name: type(getattr(options, field.name)) for field in fields(options)}
    if not SCHEME.match(address) or not fragment:
        return address, options
    changes: dict[str, Any] = {}
    for name, text in parse_qsl(fragment, keep_blank_values=True):
        place = f"{without_credentials(plain)}#{name}={text}"
        if name not in kinds:
            raise SourceError(place, "is not an option of a source", f"Use one of {', '.join(kinds)}")
        try:
            changes[name] = _BOOLEANS[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (KeyError, ValueError):
            raise SourceError(place, f"is not {_KINDS[kinds[name]]}", "Correct it") from None
        if changes[name] < 0 or changes[name] != changes[name]:
            raise SourceError(place, "is not a number from 0 on", "Correct it")
    return plain, replace(options, **changes)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
_BOOLEANS = {"true": True, "false": False}


def without_credentials(address: str) -> str:
    """Return an address without user, password, query and options, which may be secret."""
    if not SCHEME.match(address):
        return address
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sha256_text(data: bytes) -> str:
    """Return the sha256 of data as hexadecimal digits, the version where a source has none."""
    return hashlib.sha256(data).hexdigest()


def need_library(name: str, extra: str, place: str) -> Any:
    """Return a library of an extra.

    Raises:
        SourceError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        remedy = f'Install it: pip install -e ".[{extra}]"'
        raise SourceError(place, f"needs {name.partition('.')[0]}, which is not installed", remedy) from error
