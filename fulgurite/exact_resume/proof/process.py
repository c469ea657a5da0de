"""Start the trainings of a proof as processes that end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from fulgurite.core.errors import Interrupted
from fulgurite.core.proc import terminate_with_parent
from fulgurite.core.project import project_root

# Windows has no SIGHUP
STOPS = [number for number in signal.Signals if number.name in {"SIGTERM", "SIGHUP"}]


def start_process(overrides: Sequence[str], output: Path) -> int:
    """Run `src/train.py` in a session of its own and kill all that remains of it.

    Where this process is killed, the training gets SIGTERM: it saves and exits.
    """
    follow = partial(terminate_with_parent, os.getpid()) if sys.platform == "linux" else None
    with output.open("wb") as file:
        command = [sys.executable, str(project_root() / "src" / "train.py"), *overrides]
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=follow,  # noqa: PLW1509 - the other threads of a proof, of torch, are idle here
        )
        try:
            return process.wait()
        finally:
            with suppress(ProcessLookupError):  # other ranks and loader workers of a killed run
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, with `Interrupted`; nohup still ignores SIGHUP."""
    in_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in STOPS if in_main and signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, _stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)
