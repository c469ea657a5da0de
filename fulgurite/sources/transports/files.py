"""Read a file, or the files of a folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fulgurite.core.files import open_regular
from fulgurite.sources.folder_events import looks
from fulgurite.sources.reader import SCHEME, BaseReader, Fetched, ReadOptions, SourceError, sha256_text

POLL_SECONDS = 0.2  # os.stat takes 10 us
_ABSENT = (FileNotFoundError, NotADirectoryError)


class FileReader(BaseReader):
    """Reader of a file or a folder of this machine; notices a replaced file as well as a changed one."""

    def __init__(self, address: str, options: ReadOptions) -> None:
        super().__init__(address, options)
        is_url = SCHEME.match(address) is not None
        self._path = Path(unquote(urlsplit(address).path) if is_url else address).expanduser()

    def _read(self, path: str) -> Fetched | None:
        try:
            with open_regular(self._path / path, sys.maxsize) as file:
                data = file.read(self.options.max_bytes + 1)
        except _ABSENT:
            return None
        except OSError as error:
            raise self._unreadable(path, error) from error
        return Fetched(data, sha256_text(data))

    def _list(self, path: str) -> list[str]:
        try:
            return [f"{each.name}/" if each.is_dir() else each.name for each in (self._path / path).iterdir()]
        except _ABSENT:
            return []
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> SourceError:
        remedy = "Correct its permissions" if isinstance(error, PermissionError) else "Put a regular file there"
        return SourceError(self.place(path), f"is not readable ({error.strerror or error})", remedy)

    def wait(self, path: str, version: str | None, timeout: float) -> bool:
        """Look at the file's inode, time and size, and read it when they change, see `Reader.wait`."""
        end, seen, path = time.monotonic() + timeout, (-1, -1, -1), self._clean(path)
        for _ in looks((self._path / path).parent, POLL_SECONDS, self._closed):
            if self._closed.is_set():
                break
            found = self._signature(path)
            if found != seen:
                seen = found
                if self._differs(path, version):
                    return True
            if time.monotonic() >= end:
                break
        return False

    def _signature(self, path: str) -> tuple[int, int, int]:
        try:
            state = os.stat(self._path / path)  # noqa: PTH116 - as quick as possible
        except OSError:
            return (0, 0, 0)
        return (state.st_ino, state.st_mtime_ns, state.st_size)
