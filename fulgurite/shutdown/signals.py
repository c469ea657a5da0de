"""Signals that ask a run to end: training finishes its step and is saved, anything else ends at once."""

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

from fulgurite.core.errors import EXIT_DONE, Interrupted
from fulgurite.core.rank_logging import rank

# Windows has no SIGUSR1
HANDLED = {int(number): number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGUSR1"}}
# Seconds within which signals are one: timeout(1) sends two, and a terminal's Ctrl-C also comes by way of other ranks.
DEBOUNCE = 1.0


class Signals:
    """What this process was asked by signals, and when it may give in.

    Attributes:
        asked: The first signal; None until there is one.
        training: Whether somebody looks at `asked` after each optimizer step; the first signal then only asks.
        grace: Seconds that training may take to come to an end that is saved.
        parent: Process that started this one as a rank of its run, and decides for it; None in all others.
        saved: What is saved where when training has come to its end.
        together: Whether all ranks have agreed to stop, and so end by themselves.
        launcher: Lightning's, which knows the ranks that this process started.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.training = False
        self.grace = 60.0
        self.parent: int | None = None
        self.saved = ""
        self.together = False
        self.launcher: Any = None
        self._last = 0.0  # when a signal was last heeded
        self._held = self._late = False
        self._before: dict[int, Any] = {}  # handlers by signal

    @property
    def installed(self) -> bool:
        """Whether this process listens to signals by these rules."""
        return bool(self._before)

    @property
    def late(self) -> bool:
        """Whether a signal came since `hold`."""
        return self._late

    def install(self) -> None:
        """Listen; processes forked from here on do not, and in another thread than the main one nothing can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._receive)
        if hasattr(signal, "SIGALRM"):
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._grace_is_over)
            os.register_at_fork(after_in_child=self._forget)

    def begin_run(self) -> None:
        """Forget the run before: the jobs of a sweep share the process."""
        self.training = self.together = False
        self.saved, self.launcher = "", None

    def restore(self) -> None:
        """Listen no more: the handlers of before come back."""
        self._end_grace()
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)

    def adopt(self, number: int) -> None:
        """Take a signal that another rank received for one of this process."""
        if self.asked is None:
            self.asked, self._last = signal.Signals(number), time.monotonic()
            self._begin_grace()

    def stop(self, saved: str = "") -> None:
        """End the run, as was asked.

        Args:
            saved: What of it is saved where, a part of a sentence.

        Raises:
            Stopped: Always.
        """
        assert self.asked is not None
        # a rank that ended with another code would have Lightning kill the one that started it
        raise Interrupted(self.asked.name, saved or self.saved, EXIT_DONE if self.together and rank() > 0 else None)

    def stop_if_asked(self) -> None:
        """End the run between two of its parts, if a signal came in the one before.

        Raises:
            Stopped: So it was.
        """
        if self.asked is not None:
            self.stop()

    def end_ranks(self, *, patience: float = 10.0) -> None:
        """End the ranks that this process started: none outlives it.

        Args:
            patience: Seconds that ranks which end by themselves may take.
        """
        ranks = list(self.launcher.procs) if self.launcher is not None else []
        if ranks:
            self.launcher.procs.clear()  # Lightning's observer would kill this process when one of them ends badly
        until = time.monotonic() + (patience if self.together else 0.0)
        for process in ranks:
            wait = process.wait if isinstance(process, subprocess.Popen) else process.join
            with suppress(subprocess.TimeoutExpired):
                wait(timeout=max(0.0, until - time.monotonic()))
            process.kill()
            wait()

    def hold(self) -> None:
        """Let nothing interrupt what follows, not even the end of the grace, until `heed`."""
        self._end_grace()
        self._held, self._late = True, False

    def check(self) -> None:
        """End the run if a signal came since `hold`.

        Raises:
            Stopped: So it was.
        """
        self._held = False
        if self._late:
            self.stop()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let nothing interrupt the block; a signal that comes in it is heeded after it.

        Raises:
            Stopped: A signal came during the block.
        """
        self.hold()
        try:
            yield
        finally:
            self.check()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # without a call in between, so that no second signal gets in
        first, self.asked = self.asked is None, self.asked or HANDLED[number]
        now = time.monotonic()
        if not first and now - self._last < DEBOUNCE:
            return
        self._last = now
        if self.parent is not None and not (first and self.training):
            os.kill(self.parent, number)
            return
        if self._held:
            self._late = True
            return
        if first:
            # also where it ends at once: code that swallows the exception is asked again
            self._begin_grace()
            if self.training:
                self._tell()
                return
        self.stop()

    def _grace_is_over(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            return
        if self.parent is not None:
            os.kill(self.parent, self.asked)
        elif self.training:
            self.stop(f"not saved within {self.grace:g} s (resilience.grace_seconds)")
        else:
            self.stop()

    def _begin_grace(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, max(self.grace, 1e-3))  # 0 would be none

    def _end_grace(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _tell(self) -> None:
        assert self.asked is not None
        if rank() == 0:
            # not by logging: the signal may have come while that was writing
            told = f"{self.asked.name}: the run ends at the next step it can be saved at; once more ends it at once\n"
            os.write(2, told.encode())

    def _forget(self) -> None:
        """Make a forked process one that its parent ends: it neither saves nor dies of the terminal's Ctrl-C."""
        if self.installed:
            self._before = {}
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _ignore_what_is_the_parents()


class IgnoreInWorker:
    """The first thing a data loader's worker does: leave signals to the training process.

    A signal to a whole process group or container would otherwise end the workers amid the step that is to be finished.

    Args:
        then: The loader's own `worker_init_fn`.
    """

    def __init__(self, then: Callable[[int], Any] | None) -> None:
        self.then = then

    def __call__(self, worker_id: int) -> None:
        """Do so in worker `worker_id`, then what else was to be done."""
        _ignore_what_is_the_parents()
        signal.signal(signal.SIGTERM, _end_next_time)
        if self.then is not None:
            self.then(worker_id)


def _end_next_time(number: int, _: FrameType | None) -> None:
    """Let pass the signal that a whole group gets; a loader that ends a worker which does not react asks twice."""
    signal.signal(number, signal.SIG_DFL)


def _ignore_what_is_the_parents() -> None:
    for number in HANDLED:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


signals = Signals()
