"""Kill a process that is blocked inside a native call."""

from __future__ import annotations

import os
import socket
import threading
import time


class Watchdog(threading.Thread):
    """A thread that kills this process when a step takes more seconds than its limit.

    Python cannot interrupt a blocked native call.
    """

    def __init__(self, limit: float, exit_code: int, *, show_steps: bool = False) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.limit, self.exit_code, self.show_steps = limit, exit_code, show_steps
        self.host = socket.gethostname()
        self.start_step("start")
        self._stopped = threading.Event()

    def start_step(self, step: str, limit: float | None = None) -> None:
        """Start a step and its time limit in seconds; None takes the default limit."""
        self.step, self._start, self._step_limit = step, time.monotonic(), limit or self.limit
        if self.show_steps:
            os.write(2, f"\r\033[K{step} ".encode())

    def run(self) -> None:
        """Check the limit until `stop` is called."""
        while not self._stopped.wait(0.5):
            if time.monotonic() - self._start > self._step_limit:
                os.write(2, f"error: {self.host}: {self.step}: no answer within {self._step_limit:g} s\n".encode())
                os._exit(self.exit_code)

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self.clear_line()

    def clear_line(self) -> None:
        """Erase the current step from the terminal."""
        if self.show_steps:
            os.write(2, b"\r\033[K")
