"""End a process that is blocked inside a native call."""

from __future__ import annotations

import os
import socket
import threading
import time


class Watchdog(threading.Thread):
    """Ends this process when a step takes longer than anything may: a call into a library cannot be woken.

    Args:
        limit: Seconds for one step.
        exit_code: To end with.
        show: Whether each step is shown at the terminal, over the one before.
    """

    def __init__(self, limit: float, exit_code: int, *, show: bool = False) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.limit, self.exit_code, self.show = limit, exit_code, show
        self.who = socket.gethostname()
        self.begin("start")
        self._done = threading.Event()

    def begin(self, step: str, limit: float | None = None) -> None:
        """Name what is done from now on.

        Args:
            step: Said when it takes too long.
            limit: Seconds that it may take, when it is other than usual.
        """
        self.step, self._since, self._limit = step, time.monotonic(), limit or self.limit
        if self.show:
            os.write(2, f"\r\033[K{step} ".encode())

    def run(self) -> None:
        """Look until told to end."""
        while not self._done.wait(0.5):
            if time.monotonic() - self._since > self._limit:
                os.write(2, f"error: {self.who}: {self.step}: no answer for {self._limit:g} s\n".encode())
                os._exit(self.exit_code)

    def end(self) -> None:
        """Stop looking."""
        self._done.set()
        self.clear()

    def clear(self) -> None:
        """Take the step off the terminal."""
        if self.show:
            os.write(2, b"\r\033[K")
