"""Load and watch a file of this machine, through atomic renames, editors, links and a file that does not exist yet."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulgurite.core.errors import UserError
from fulgurite.sources.folder_events import looks
from fulgurite.store.loaders.remote import SourceLoader

POLL_SECONDS, SETTLE_SECONDS, MAX_SETTLE_SECONDS = 0.5, 0.05, 2.0
TICK_NANOSECONDS = 50_000_000  # file systems know times to a few milliseconds
_NO_FILE = (0, 0, 0)
Signature = tuple[int, int, int]


class FileLoader(SourceLoader):
    """Loads a file, and watches it.

    A change is noticed by inode, time and size, which also change when another file takes the name or a link gets
    another target; watching the file itself ends at the first rename. Where watchfiles is installed, an event of the
    folder wakes the loader before the next poll. A reload refuses a file that is empty or whose last line has no end,
    since a writer may be in the middle of it; JSON that is cut does not parse.

    Args:
        path: The file.
        suffix: yaml, json, toml or env; None: the suffix of the name.
        poll_seconds: Between two looks at the file.
        options: See `SourceLoader`.

    Raises:
        UserError: The suffix is not known.

    Example:
        >>> FileLoader("live.yaml", required=False)
    """

    def __init__(
        self, path: str | Path, *, suffix: str | None = None, poll_seconds: float = POLL_SECONDS, **options: Any
    ) -> None:
        self._path = Path(path).expanduser().absolute()
        super().__init__(str(self._path), suffix=suffix, poll_seconds=poll_seconds, **{"name": str(path), **options})
        self._is_loaded = self._has_content = False
        self._seen: Signature | None = None  # whose content was read; None: read it at the next look

    def load(self) -> Mapping[str, Any]:
        """Return the parsed file, once no other process changes it.

        Raises:
            UserError: The file is missing, half-written or cannot be parsed.
        """
        found = self._settled() if self._is_loaded else self._signature()
        self._is_loaded = True
        self._note(found)
        return super().load()

    def _values(self, path: str, data: bytes) -> dict[str, Any]:
        needs_end = self._parser is None and self._format(path) != "json"
        if self._has_content and (not data or (needs_end and not data.endswith(b"\n"))):
            problem = "has no end of its last line" if data else "is empty"
            raise UserError(f"{self.name}: {problem}, as a half-written file. Write all of it, and end its last line.")
        values = super()._values(path, data)
        self._has_content = True
        return values

    def wait(self, stop: threading.Event) -> bool:
        """Block until the content of the file is another one than was read last."""
        assert self.poll_seconds is not None
        for _ in looks(self._path.parent, self.poll_seconds, stop):
            found = self._signature()
            if found == self._seen:
                continue
            if self._differs("", 0.0):
                return not stop.is_set()
            self._note(found)  # only its time has changed
        return False

    def _note(self, found: Signature) -> None:
        """Look at the content again if a second write may have left the times as they are."""
        self._seen = found if time.time_ns() - found[1] > TICK_NANOSECONDS else None

    def _signature(self) -> Signature:
        try:
            state = os.stat(self._path)  # noqa: PTH116 - as quick as possible
        except OSError:
            return _NO_FILE
        return (state.st_ino, state.st_mtime_ns, state.st_size)

    def _settled(self) -> Signature:
        """Return the signature once it is the same twice; an editor may remove the file for a moment."""
        end, before = time.monotonic() + MAX_SETTLE_SECONDS, self._signature()
        while time.monotonic() < end:
            time.sleep(SETTLE_SECONDS)
            now = self._signature()
            if now == before:
                break
            before = now
        return before
