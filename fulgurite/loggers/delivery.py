"""What a tracker refuses, or never answers, costs a run a bounded time and no value.

One thread speaks to one tracker: calls wait in a queue, are made in their order, and are tried again when the tracker
cannot be reached. The training loop never waits for them. A run waits in four places only (the tracker's opening, the
ends of training and of the test, its own end), together no longer than `WaitBudget` allows. What was not delivered by
then is left in `undelivered-<name>.jsonl`, one call a line.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fulgurite.core.rank_logging import RankedLogger

TRIES = 3  # of a call that a tracker refuses; a tracker that cannot be reached is tried for as long as the run lasts
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries; each pause is twice the one before
SLOWLY = 10  # how many times as long as for silence a run waits while answers come
MAX_PENDING = 10_000  # calls that wait in memory; of more, the oldest go to the file

log = RankedLogger(__name__)


class WaitBudget:
    """How long one run waits for its trackers: all of them, and all waits together.

    What counts is silence; a tracker that answers, but slowly, gets `SLOWLY` times as long.

    Args:
        seconds: Of silence, the whole of it.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.longest = SLOWLY * seconds

    def wait(
        self,
        condition: threading.Condition,
        done: Callable[[], bool],
        share: float,
        answers: Callable[[], int] = lambda: 0,
    ) -> bool:
        """Wait until `done`, or until a share of what is left has gone by in silence, and tell which.

        Args:
            condition: Is notified whenever `done` or `answers` may have changed; it is held by the caller.
            done: What is waited for.
            share: Of the time that is left, 0 to 1.
            answers: How many there were so far.
        """
        silence, ends = self.left * share, time.monotonic() + self.longest * share
        while not done():
            heard, start = answers(), time.monotonic()
            condition.wait_for(lambda: done() or answers() != heard, max(0.0, min(silence, ends - start)))  # noqa: B023
            waited = time.monotonic() - start
            self.longest = max(0.0, self.longest - waited)
            if not done() and answers() == heard:
                self.left = max(0.0, self.left - waited)
                return False
        return True


@dataclass
class PendingCall:
    """One call of a tracker.

    Attributes:
        function: Makes it.
        content: What is kept of it when it cannot be delivered; None keeps nothing.
        opens: Without it the tracker takes no other call.
    """

    function: Callable[[], Any]
    content: dict[str, Any] | None = None
    opens: bool = False


class DeliveryQueue:
    """The way to one tracker: a queue, and the thread that makes its calls one after the other.

    Args:
        name: The tracker's name in the config.
        folder: The run's directory, for what is not delivered.
        patience: Shared by all trackers of the run.
    """

    def __init__(self, name: str, folder: Path, patience: WaitBudget) -> None:
        self.name = name
        self.folder = folder
        self.patience = patience
        self.file = folder / f"undelivered-{name}.jsonl"
        self.told = False
        self.kept = 0
        self.home = os.getpid()  # the process that closes the tracker; those it spawns end earlier
        self._start()

    def _start(self) -> None:
        self.process = os.getpid()
        self.changed = threading.Condition()
        self.calls: deque[PendingCall] = deque()  # the first is being made
        self.open = False  # the tracker's own run is there
        self.answers = 0  # calls that were made
        self.awaited = False  # the run has waited for it once
        self.unreachable = False  # the last try found nobody
        self.closing = False
        self.over = False  # nothing is sent any more
        self.thread: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        kept = ("name", "folder", "patience", "file", "told", "kept", "home")
        return {key: value for key, value in vars(self).items() if key in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    @property
    def in_worker_thread(self) -> bool:
        """Whether this is the tracker's own thread."""
        return threading.current_thread() is self.thread

    def begin(self, opening: Callable[[], Any]) -> None:
        """Start the thread and let it open the tracker's own run; does nothing when it has been started.

        Args:
            opening: Opens the run.
        """
        if self.process != os.getpid():
            self._start()  # forked: threads stay behind
        with self.changed:
            if self.thread is None and not self.over:
                self.calls.append(PendingCall(opening, opens=True))
                self.thread = threading.Thread(target=self._work, name=f"tracker-{self.name}", daemon=True)
                self.thread.start()

    def send(self, call: PendingCall) -> None:
        """Put a call at the end of the queue; costs the caller no time."""
        with self.changed:
            if self.over:
                self._keep(call)
                return
            self.calls.append(call)
            if len(self.calls) > MAX_PENDING:
                being_made = self.calls.popleft()
                self._keep(self.calls.popleft())
                self.calls.appendleft(being_made)
            self.changed.notify_all()

    def wait_connected(self) -> bool:
        """Tell whether the tracker's own run is there; the first time, wait for it."""
        with self.changed:
            if not self.awaited:
                self.awaited = True
                answered = self.patience.wait(
                    self.changed, lambda: self.open or self.over or self.unreachable, share=0.5
                )
                if not answered:
                    self.tell("no answer yet")
            return self.open

    def flush(self) -> None:
        """Wait for the calls made so far, unless the tracker cannot be reached anyway."""
        with self.changed:
            self.patience.wait(self.changed, lambda: not self.calls or self.unreachable, 0.5, lambda: self.answers)

    def end_stage(self) -> None:
        """Wait at the end of training or of the test: for the last time in a process that was spawned for it."""
        if self.process == self.home:
            self.flush()
        else:
            self.begin_close()
            self.close()
            self._start()

    def begin_close(self) -> None:
        """Let each waiting call have one more try, and none a pause."""
        with self.changed:
            self.closing = True
            self.unreachable = False
            self.changed.notify_all()

    def close(self) -> None:
        """Wait for the last calls as long as there is patience, and keep what is left of them."""
        with self.changed:
            self.patience.wait(self.changed, lambda: not self.calls or self.over, 1.0, lambda: self.answers)
            if self.calls:
                self.tell("no answer")
            self._give_up()
        if self.kept:
            log.info("%s: %d calls were not delivered; they are in %s", self.name, self.kept, self.file)

    def tell(self, reason: str) -> None:
        """Warn of the tracker, once a run."""
        if not self.told:
            self.told = True
            log.warning("%s: %s; the run goes on, and what is not delivered stays in %s", self.name, reason, self.file)

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.calls or self.over)
                if self.over:
                    return
                call = self.calls[0]
            delivered = self._deliver(call)
            with self.changed:
                if not self.calls:
                    return  # given up meanwhile, and kept by who did that
                self.calls.popleft()
                if not delivered:
                    self._keep(call)
                if call.opens:
                    self.open = delivered
                    if not delivered:
                        self._give_up()
                self.changed.notify_all()

    def _deliver(self, call: PendingCall) -> bool:
        """Make one call, again and again where that can help, and tell whether it was made."""
        refused, pause = 0, FIRST_PAUSE
        while not self.over:
            try:
                call.function()
            except Exception as error:  # noqa: BLE001, PERF203 - no error of a tracker is the run's
                self.tell(one_line(error))
                away = is_unreachable(error)
                refused += not away
                with self.changed:
                    if away and self.closing:
                        self._give_up()
                        return False
                    self.unreachable = away
                    self.changed.notify_all()
                    if refused == TRIES or (refused and self.closing):
                        return False
                    self.changed.wait_for(lambda: self.closing or self.over, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                with self.changed:
                    self.unreachable = False
                    self.answers += 1
                return True
        return False

    def _give_up(self) -> None:
        """Keep all calls that wait; the caller holds the lock."""
        self.over = True
        while self.calls:
            self._keep(self.calls.popleft())
        self.changed.notify_all()

    def _keep(self, call: PendingCall) -> None:
        if call.content is None:
            return
        self.kept += 1
        with suppress(OSError), self.file.open("a") as file:  # metrics.csv has the metrics too
            file.write(json.dumps(call.content, default=str) + "\n")


def is_unreachable(error: BaseException) -> bool:
    """Tell whether an error came from the way to a tracker and not from the tracker itself."""
    return _network_error(error) is not None


def one_line(error: BaseException) -> str:
    """Return type and message of an error, or of the network's error behind it, short enough for a line."""
    error = _network_error(error) or error
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:120]}" if words else type(error).__name__


def _network_error(error: BaseException | None) -> OSError | None:
    found = None
    while error is not None:
        # the innermost says most; an OSError about a file names the file; errors of requests are OSErrors too
        if isinstance(error, OSError) and error.filename is None:
            found = error
        error = error.__cause__ or error.__context__
    return found
