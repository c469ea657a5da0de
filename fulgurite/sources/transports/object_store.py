"""Read from object stores and other file systems by fsspec: `s3://`, `gs://`, `memory://` and what its drivers add."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from fulgurite.sources.reader import (
    SCHEME,
    BaseReader,
    Fetched,
    Names,
    ReadOptions,
    SourceError,
    need_library,
    sha256_text,
)

T = TypeVar("T")


class ObjectStoreReader(BaseReader):
    """Reader of a file system of fsspec; credentials are those of its driver, such as `AWS_ACCESS_KEY_ID`."""

    def __init__(self, address: str, options: ReadOptions) -> None:
        super().__init__(address, options)
        found = SCHEME.match(address)
        self._scheme = found[0].lower() if found else "file"

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        fsspec = need_library("fsspec", "sources", self.name)
        if self._scheme not in fsspec.available_protocols():
            known = "file, http, https, etcd, consul, vault, s3, gs, memory or another one of fsspec"
            raise SourceError(self.name, f"{self._scheme}:// is not known", f"Use {known}")
        try:
            system, root = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except ImportError as error:
            package = " ".join(str(error).split())
            raise SourceError(self.name, f"its driver is not installed ({package})", "Install it") from error
        return system, str(root).rstrip("/")

    def _full(self, path: str) -> str:
        root = self._opened[1]
        return f"{root}/{path}" if path else root

    def _read(self, path: str) -> Fetched | None:
        system, full = self._opened[0], self._full(path)

        def read() -> Fetched:
            with system.open(full, "rb") as file:
                data = file.read(self.options.max_bytes + 1)
            return Fetched(data, sha256_text(data))

        return self._in_time(path, read)

    def _list(self, path: str) -> Names:
        system, full = self._opened[0], self._full(path)

        def read() -> Names:
            entries = [(str(each["name"]).rstrip("/"), each["type"]) for each in system.ls(full, detail=True)]
            inside = [(name.rpartition("/")[2], kind) for name, kind in entries if name.strip("/") != full.strip("/")]
            return [f"{name}/" if kind == "directory" else name for name, kind in inside if name]

        return self._in_time(path, read) or []

    def _in_time(self, path: str, request: Callable[[], T]) -> T | None:
        """Return what a request returns, None where there is no such file; not every driver has a timeout."""
        results: list[Any] = []

        def run() -> None:
            try:
                results.append(request())
            except BaseException as error:  # noqa: BLE001 - raised below
                results.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.options.timeout)
        if not results:
            raise self.failure(path, f"did not answer within {self.options.timeout:g} s")
        found = results[0]
        if isinstance(found, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            return None
        if isinstance(found, PermissionError):
            raise SourceError(self.place(path), "refused the request", "Correct the credentials") from found
        if isinstance(found, Exception):
            text = " ".join(str(found).split()) or type(found).__name__
            is_login = "credential" in text.lower()
            problem, remedy = f"failed ({text})", "Correct the credentials" if is_login else "Correct its address"
            raise SourceError(self.place(path), problem, remedy, is_transient=not is_login) from found
        if isinstance(found, BaseException):
            raise found
        result: T = found
        return result
