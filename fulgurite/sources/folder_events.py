"""Wake whoever looks at a file at each event of its folder where watchfiles is installed, else poll."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path


def looks(folder: Path, poll_seconds: float, stop: threading.Event) -> Iterator[None]:
    """Yield now, at each event of a folder, and at least every `poll_seconds`, until `stop` is set."""
    yield None
    try:
        from watchfiles import watch

        if not (library := logging.getLogger("watchfiles")).level:
            library.setLevel(logging.WARNING)  # it reports each file of the folder that changes
        milliseconds = max(1, int(poll_seconds * 1000))
        for _ in watch(
            folder, rust_timeout=milliseconds, yield_on_timeout=True, stop_event=stop,
            recursive=False, watch_filter=None, debounce=50,
        ):  # fmt: skip
            yield None
    except (ImportError, OSError):  # OSError: no folder yet, or the machine has no more watches
        while not stop.wait(poll_seconds):
            yield None
