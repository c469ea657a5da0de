"""Hold log messages back until the first line of a run, which names its directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hold_logs() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged in the block, for `release_logs`; an error of the block releases it at once."""
    held: list[logging.LogRecord] = []
    handlers = list(logging.getLogger().handlers)

    def hold(record: logging.LogRecord) -> bool:
        if record not in held:  # each handler asks
            held.append(record)
        return False

    for handler in handlers:
        handler.addFilter(hold)
    try:
        yield held
    except BaseException:
        for handler in handlers:
            handler.removeFilter(hold)
        release_logs(held)
        raise
    for handler in handlers:
        handler.removeFilter(hold)


def release_logs(held: list[logging.LogRecord]) -> None:
    """Log the collected messages."""
    for record in held:
        logging.getLogger().handle(record)
