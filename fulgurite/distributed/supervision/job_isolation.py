"""Terminate the child ranks of a sweep job, and restore the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fulgurite.core.errors import find_interrupt
from fulgurite.distributed.comm_env import COMM_PREFIXES

# Lightning sets these in rank 0 for the child ranks
LIGHTNING_ENV = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def isolated_job() -> Iterator[None]:
    """Isolate a job: a left LOCAL_RANK makes the next job a child rank."""
    before = dict(os.environ)
    stopped = False
    try:
        yield
    except BaseException as error:
        stopped = find_interrupt(error) is not None  # the sweep ends, and terminates child ranks itself
        raise
    finally:
        if not stopped and "fulgurite.distributed.supervision.launcher" in sys.modules:
            from fulgurite.distributed.supervision.launcher import SupervisedLauncher

            SupervisedLauncher.terminate_all()
            for name in [name for name in os.environ if name in LIGHTNING_ENV or name.startswith(COMM_PREFIXES)]:
                del os.environ[name]
            os.environ.update({name: value for name, value in before.items() if name not in os.environ})
