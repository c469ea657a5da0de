"""A job of a sweep that has several processes: the others are started for this job alone, and the next begins clean."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fulgurite.core.errors import find_interrupt
from fulgurite.distributed.comm_env import COMM_PREFIXES

# What Lightning tells the processes that it starts, in the environment of the one that starts them.
LIGHTNING_ENV = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def isolated_job() -> Iterator[None]:
    """Leave no trace of a job's other processes: the next job would take this one for a process that was started."""
    before = dict(os.environ)
    stopped = False
    try:
        yield
    except BaseException as error:
        stopped = find_interrupt(error) is not None  # ends the sweep, and with it the others at once
        raise
    finally:
        if not stopped and "fulgurite.distributed.supervision.launcher" in sys.modules:
            from fulgurite.distributed.supervision.launcher import SupervisedLauncher

            SupervisedLauncher.terminate_all()
            for name in [name for name in os.environ if name in LIGHTNING_ENV or name.startswith(COMM_PREFIXES)]:
                del os.environ[name]
            os.environ.update({name: value for name, value in before.items() if name not in os.environ})
