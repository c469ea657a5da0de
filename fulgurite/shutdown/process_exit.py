"""Report a run whose process user code ends at once, without exceptions and cleanups, by `os._exit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from fulgurite.core.errors import EXIT_CRASH


@contextmanager
def reported_exit(report: Callable[[int], None]) -> Iterator[None]:
    """Let `os._exit` of this process report first, and exit with a code that is not 0, since the run is not done.

    Child processes, which inherit the function, exit as they ask to, and so does this library, which has reported.

    Args:
        report: Records how the run ended, from the code that user code passed.
    """
    exit_process, pid = os._exit, os.getpid()

    def exit_and_report(status: int) -> NoReturn:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if os.getpid() == pid and not caller.startswith("fulgurite."):
            with suppress(Exception):  # the process ends in any case
                report(status)
                sys.stdout.flush()
            status = status or EXIT_CRASH
        exit_process(status)

    os._exit = exit_and_report
    try:
        yield
    finally:
        os._exit = exit_process
