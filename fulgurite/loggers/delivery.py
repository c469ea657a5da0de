"""Deliver the calls of a logger from a thread of its own, in order, with retries.

A run waits, within its `WaitBudget`, when a logger connects and at the end of training, of the test and of the run.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import hide_secrets

MAX_TRIES = 3  # of a call that the service rejects; an unreachable service is tried until the run ends
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0  # between two tries; each pause is twice the one before
SLOW_FACTOR = 10  # a service that responds slowly gets this many times the budget of a silent one
MAX_PENDING = 10_000  # calls in the queue; beyond it the oldest are saved to the file

log = RankedLogger(__name__)


class WaitBudget:
    """Seconds that a run may wait for its loggers without any response, all of them and all waits together.

    With responses, it may wait `SLOW_FACTOR` times as long.
    """

    def __init__(self, seconds: float) -> None:
        self.silent_seconds = seconds
        self.total_seconds = SLOW_FACTOR * seconds

    def wait(
        self,
        changed: threading.Condition,
        is_done: Callable[[], bool],
        fraction: float,
        num_responses: Callable[[], int] = lambda: 0,
    ) -> bool:
        """Wait until `is_done`, at most a fraction (0 to 1) of the budget without a response, and return `is_done`.

        The caller holds `changed`, which is notified when `is_done` or `num_responses` may have changed.
        """
        silent_seconds, deadline = self.silent_seconds * fraction, time.monotonic() + self.total_seconds * fraction
        while not is_done():
            before, start = num_responses(), time.monotonic()
            timeout = max(0.0, min(silent_seconds, deadline - start))
            changed.wait_for(lambda: is_done() or num_responses() != before, timeout)  # noqa: B023 - called here only
            waited = time.monotonic() - start
            self.total_seconds = max(0.0, self.total_seconds - waited)
            if not is_done() and num_responses() == before:
                self.silent_seconds = max(0.0, self.silent_seconds - waited)
                return False
        return True


@dataclass
class PendingCall:
    """One call of a logger."""

    function: Callable[[], Any]
    content: dict[str, Any] | None = None  # saved to the file if the call is not delivered; None saves nothing


class DeliveryQueue:
    """The queue of one logger, and the thread that makes its calls; a file in `folder` gets the undelivered ones."""

    def __init__(self, name: str, folder: Path, budget: WaitBudget) -> None:
        self.name, self.budget = name, budget
        self.file = folder / f"undelivered-{name}.jsonl"  # one call per line
        self.main_process = os.getpid()  # closes the logger; spawned ranks end before it
        self.has_warned, self.num_undelivered = False, 0
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("name", "budget", "file", "main_process", "has_warned", "num_undelivered")
        return {key: vars(self)[key] for key in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def _reset(self) -> None:
        self.process = os.getpid()
        self.calls: queue.Queue[PendingCall] = queue.Queue()
        self.current: PendingCall | None = None  # being made by the thread
        self.changed = threading.Condition()  # guards the attributes below; notified after each try
        self.num_delivered = 0
        self.is_connected = False
        self.is_unreachable = False  # the last try found no service
        self.is_stopped = False  # no call is made any more
        self.has_waited = False  # for the connection
        self.closing = threading.Event()  # no pauses any more
        self.thread: threading.Thread | None = None

    @property
    def in_worker_thread(self) -> bool:
        """Whether the caller runs in the logger's own thread."""
        return threading.current_thread() is self.thread

    def start(self, connect: Callable[[], Any]) -> None:
        """Start the thread, unless it runs already. If its first call, `connect`, fails, it makes no other."""
        if self.process != os.getpid():
            self._reset()  # threads do not survive a fork
        with self.changed:
            if self.thread is None and not self.is_stopped:
                self.thread = threading.Thread(None, self._work, f"logger-{self.name}", (connect,), daemon=True)
                self.thread.start()

    def send(self, call: PendingCall) -> None:
        """Append a call to the queue; returns at once."""
        with self.changed:
            if self.is_stopped:
                self._spill(call)
                return
            if self.calls.qsize() >= MAX_PENDING:
                self._spill(self.calls.get_nowait())
                self.calls.task_done()
            self.calls.put(call)

    def wait_connected(self) -> bool:
        """Return whether the logger is connected; the first call waits for it."""
        with self.changed:
            if not self.has_waited:
                self.has_waited = True
                if not self._wait(lambda: self.is_connected or self.is_stopped or self.is_unreachable, 0.5):
                    self.warn_once("no response yet")
            return self.is_connected

    def end_stage(self) -> None:
        """Wait for the pending calls, unless the service is unreachable; a process spawned for the stage closes."""
        if self.process == self.main_process:
            with self.changed:
                self._wait(lambda: self._is_idle() or self.is_unreachable, 0.5)
        else:
            self.begin_close()
            self.close()
            self._reset()

    def begin_close(self) -> None:
        """Try each pending call once more, without pauses."""
        with self.changed:
            self.is_unreachable = False
            self.closing.set()

    def close(self) -> None:
        """Wait for the pending calls as long as the budget allows, and save the rest to the file."""
        with self.changed:
            if not self._wait(self._is_idle, 1.0):
                self.warn_once("no response")
            self._stop()
        if self.num_undelivered:
            log.info("%s: %d undelivered calls are saved in %s", self.name, self.num_undelivered, self.file)

    def warn_once(self, reason: str, consequence: str = "") -> None:
        """Warn of the first problem of the run, and of no other."""
        if not self.has_warned:
            self.has_warned = True
            consequence = consequence or f"undelivered calls go to {self.file}"
            log.warning("%s: %s. Training continues, %s.", self.name, reason, consequence)

    def _wait(self, is_done: Callable[[], bool], fraction: float) -> bool:
        return self.budget.wait(self.changed, is_done, fraction, lambda: self.num_delivered)

    def _is_idle(self) -> bool:
        return self.is_stopped or (self.is_connected and not self.calls.unfinished_tasks)

    def _work(self, connect: Callable[[], Any]) -> None:
        calls, connected = self.calls, self._deliver(PendingCall(connect))
        with self.changed:
            self.is_connected = connected
            if not connected:
                self._stop()
            self.changed.notify_all()
        while True:
            call = calls.get()
            with self.changed:
                if self.is_stopped or self.calls is not calls:  # `_reset` replaces the queue
                    self._spill(call)
                    return
                self.current = call
            delivered = self._deliver(call)
            with self.changed:
                if self.current is call and not delivered:  # else `_stop` has saved it
                    self._spill(call)
                self.current = None
                calls.task_done()
                self.changed.notify_all()

    def _deliver(self, call: PendingCall) -> bool:
        """Make one call, with retries, and return whether it succeeded."""
        num_rejections, pause = 0, FIRST_PAUSE_SECONDS
        while not self.is_stopped:
            is_last_try, error = self.closing.is_set(), error_of(call.function)
            with self.changed:
                self.num_delivered += error is None
                self.is_unreachable = _network_error(error) is not None
                self.changed.notify_all()
                if error is None:
                    return True
                self.warn_once(one_line(error))
                if is_last_try and self.is_unreachable:
                    self._stop()
                num_rejections += not self.is_unreachable
            if is_last_try or num_rejections == MAX_TRIES:
                return False
            self.closing.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        return False

    def _stop(self) -> None:
        """Make no more calls and save the pending ones; the caller holds the lock."""
        self.is_stopped = True
        if self.current:
            self._spill(self.current)
        while not self.calls.empty():
            self._spill(self.calls.get_nowait())
        self.current = None
        self.calls.put(PendingCall(lambda: None))  # wakes the thread, which then ends
        self.changed.notify_all()

    def _spill(self, call: PendingCall) -> None:
        if call.content is not None:
            self.num_undelivered += 1
            with suppress(OSError), self.file.open("a") as file:  # metrics.csv has the metrics too
                file.write(json.dumps(call.content, default=str) + "\n")


def error_of(function: Callable[[], Any]) -> Exception | None:
    """Call a function and return the error that it raises."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - an error of a logger must not stop the run
        return error
    return None


def causes_of(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes, the innermost last."""
    found: list[BaseException] = []
    while error is not None and error not in found:  # `raise cause from wrapper` makes the chain a circle
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def one_line(error: BaseException) -> str:
    """Return type and message of an error, or of the network error that caused it, in one short line."""
    error = _network_error(error) or error
    text = " ".join(hide_secrets(str(error)).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _network_error(error: BaseException | None) -> OSError | None:
    # the innermost is the most specific; an OSError of a file has a file name; errors of requests are OSErrors too
    network = [cause for cause in causes_of(error) if isinstance(cause, OSError) and cause.filename is None]
    return network[-1] if network else None
