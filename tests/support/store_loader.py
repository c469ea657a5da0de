"""A loader that a test feeds, and a wait for what another thread does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fulgurite.store import Loader


class FedLoader(Loader):
    """Gives what the test fed last, and wakes its watcher at each `feed`.

    Args:
        values: Nested values, or an exception to raise.
        name: Name of the loader.
        options: See `Loader`.

    Attributes:
        num_loads: How often it was loaded.
        is_closed: Whether it was closed.
    """

    is_polled = False

    def __init__(self, values: Mapping[str, Any] | Exception, name: str = "fed", **options: Any) -> None:
        super().__init__(name, **options)
        self.values: Mapping[str, Any] | Exception = values
        self.num_loads = 0
        self.is_closed = False
        self._fed = threading.Event()

    @property
    def is_watched(self) -> bool:
        return True

    def feed(self, values: Mapping[str, Any] | Exception) -> None:
        """Change the source."""
        self.values = values
        self._fed.set()

    def load(self) -> Mapping[str, Any]:
        self.num_loads += 1
        if isinstance(self.values, Exception):
            raise self.values
        return self.values

    def wait(self, stop: threading.Event) -> bool:
        while not self._fed.wait(0.005):
            if stop.is_set():
                return False
        self._fed.clear()
        return True

    def close(self) -> None:
        self.is_closed = True


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return once a condition holds.

    Raises:
        TimeoutError: It does not hold after so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the condition never held")
        time.sleep(0.002)
