"""Handle SIGINT, SIGTERM and SIGUSR1: finish the training step and save, or stop at once.

    idle --- signal while training ---> requested --- step saved ------------------+
     |                                      |                                       |
     |                                      +-- second signal, or grace timer --+   |
     |                                                                          v   v
     +--- signal outside training ---------------------------------------> raise Interrupted
     |                                                                            ^
     +--- signal inside `deferred()` ---> pending --- end of the block, or second -+

A rank that rank 0 started forwards each signal to rank 0, except the first one while training: rank 0 decides.
Signals within `DEBOUNCE_SECONDS` count as one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from fulgurite.core.context import current_context, setting
from fulgurite.core.errors import EXIT_DONE, Interrupted
from fulgurite.core.rank_logging import rank
from fulgurite.core.redact import known_secrets
from fulgurite.terminal.color_handler import wrapped
from fulgurite.terminal.status_line import ERASE_LINE, shows_status_line

# Windows has no SIGUSR1
HANDLED = {int(number): number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGUSR1"}}
# timeout(1) sends two signals, and a terminal's Ctrl-C also arrives through other ranks
DEBOUNCE_SECONDS = 1.0


class SignalHandler:
    """The signals that this process received, and when it acts on them."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None  # the first signal
        self.training = False  # a callback checks `requested` after each step, so the first signal raises nothing
        self.grace_seconds = 60.0  # from the signal to a step that can be saved
        self.parent: int | None = None  # process ID of rank 0 if it started this process as a rank
        self.saved = ""  # what training saved and where, part of a sentence
        self.find_last: Callable[[], str] = str  # returns what was saved last while training, part of a sentence
        self.announces = False  # a script has no run record: a stop is written to standard error
        self.ranks_agreed = False  # all ranks stop at the same step, so each exits by itself
        self.launcher: Any = None  # Lightning's launcher of the ranks that this process started
        self.pending = False  # a signal arrived since `defer`
        self._deferring = False
        self._handled_at = 0.0  # time of the last signal that was not debounced
        self._previous: dict[int, Any] = {}  # the handlers before `install`, by signal

    @property
    def is_installed(self) -> bool:
        """Whether this process handles signals by these rules."""
        return bool(self._previous)

    def install(self) -> None:
        """Install the handlers, in the main thread only; forked processes do not inherit them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED:
            self._previous[number] = signal.signal(number, self._receive)
        if hasattr(signal, "SIGALRM"):
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._end_of_grace)
            os.register_at_fork(after_in_child=self._leave_to_parent)

    def reset_run(self) -> None:
        """Reset what belongs to one run; the jobs of a sweep share the process."""
        self.training = self.ranks_agreed = False
        self.saved, self.launcher, self.find_last = "", None, str

    def restore(self) -> None:
        """Restore the handlers that were there before `install`."""
        self._set_timer(0)
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)

    def adopt(self, number: int) -> None:
        """Treat a signal that another rank received as received here."""
        if self.requested is None:
            self.requested, self._handled_at = signal.Signals(number), time.monotonic()
            self._set_timer(max(self.grace_seconds, 1e-3))

    def stop(self, saved: str = "") -> None:
        """Raise `Interrupted` with what was saved and where, part of a sentence; in a script, report it too."""
        assert self.requested is not None
        saved = "; ".join(filter(None, [saved or self.saved, self.find_last() if self.training else ""]))
        if self.announces and rank() == 0:
            default = "nothing saved" if self.training else "stopped outside of training"
            os.write(2, f"{self.requested.name}: {saved or default}\n".encode())
        # exit 0: Lightning kills rank 0 when a child rank exits with another code
        exit_code = EXIT_DONE if self.ranks_agreed and rank() > 0 else None
        raise Interrupted(self.requested.name, saved, exit_code)

    def stop_if_requested(self) -> None:
        """Raise `Interrupted` between two parts of the run if a signal arrived."""
        if self.requested is not None:
            self.stop()

    def terminate_ranks(self, *, timeout: float = 10.0) -> None:
        """Kill the ranks that this process started, after `timeout` seconds if they agreed to stop."""
        ranks = list(self.launcher.procs) if self.launcher is not None else []
        if ranks:
            self.launcher.procs.clear()  # Lightning's observer kills this process when a rank fails
        deadline = time.monotonic() + (timeout if self.ranks_agreed else 0.0)
        for process in ranks:
            wait = process.wait if isinstance(process, subprocess.Popen) else process.join
            with suppress(subprocess.TimeoutExpired):
                wait(timeout=max(0.0, deadline - time.monotonic()))
            process.kill()
            wait()

    def defer(self) -> None:
        """Defer a signal, and the end of the grace period, until `check`; a second one raises `Interrupted` at once."""
        self._set_timer(0)
        self._deferring, self.pending = True, False

    def check(self) -> None:
        """Raise `Interrupted` if a signal arrived since `defer`."""
        self._deferring = False
        if self.pending:
            self.stop()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer a signal to the end of the block, which then raises `Interrupted`."""
        self.defer()
        try:
            yield
        finally:
            self.check()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # one statement without a call: a second signal cannot come in between
        first, self.requested = self.requested is None, self.requested or HANDLED[number]
        now = time.monotonic()
        if not first and now - self._handled_at < DEBOUNCE_SECONDS:
            return
        self._handled_at = now
        if self.parent is not None and not (first and self.training):
            os.kill(self.parent, number)
            return
        if self._deferring and not self.pending:
            self.pending = True
            return
        if first:
            # also outside training: code that swallows the exception is interrupted again
            self._set_timer(max(self.grace_seconds, 1e-3))
            if self.training:
                self._announce()
                return
        self.stop()

    def _end_of_grace(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            return
        if self.parent is not None:
            os.kill(self.parent, self.requested)
        elif self.training:
            self.stop(f"not saved within {self.grace_seconds:g} s ({setting('resilience.grace_seconds')})")
        else:
            self.stop()

    @staticmethod
    def _set_timer(seconds: float) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, seconds)  # 0 disarms it

    def _announce(self) -> None:
        assert self.requested is not None
        if rank() == 0:
            # os.write instead of logging: the signal may have interrupted a log call that holds the lock
            text = "stopping at the next step that can be saved. Send it again to stop at once."
            line = f"{self.requested.name}: {text}"
            if shows_status_line():  # the bar may stand there, and the echo of Ctrl-C
                line = f"{ERASE_LINE}{wrapped(line)}"
            os.write(2, f"{line}\n".encode())

    def _leave_to_parent(self) -> None:
        if self.is_installed:
            self._previous = {}
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _ignore_interrupts()


def signal_handler() -> SignalHandler:
    """Return this process's handler; it handles nothing before `install`."""
    context = current_context()
    if context.signals is None:
        context.signals = SignalHandler()
    handler: SignalHandler = context.signals
    return handler


class IgnoreInWorker:
    """A `worker_init_fn` that leaves signals to the training process, then calls the DataLoader's own one.

    A signal to the whole process group would otherwise end the workers before the step is finished.
    """

    def __init__(self, inner: Callable[[int], Any] | None) -> None:
        self.inner = inner

    def __call__(self, worker_id: int) -> None:
        """Ignore the signals in this worker."""
        _ignore_interrupts()
        signal.signal(signal.SIGTERM, _ignore_once)
        if self.inner is not None:
            self.inner(worker_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_worker, (self.inner, known_secrets)  # a worker that is spawned composes no config


def _in_worker(inner: Callable[[int], Any] | None, _: object) -> IgnoreInWorker:
    return IgnoreInWorker(inner)


def _ignore_once(number: int, _: FrameType | None) -> None:
    """Ignore the signal to the process group; a DataLoader that terminates a worker sends a second one."""
    signal.signal(number, signal.SIG_DFL)


def _ignore_interrupts() -> None:
    for number in HANDLED:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
