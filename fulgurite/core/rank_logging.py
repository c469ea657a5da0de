"""One logger for every rank: it says who speaks, keeps %-arguments, and points at the line that called it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from typing import Any


def rank() -> int:
    """Return this process's global rank as the launchers tell it (torchrun, srun, mpiexec, Lightning); 0 when alone."""
    if os.environ.get("RANK", "").isdigit():
        return int(os.environ["RANK"])
    # a batch script is SLURM's process 0, and so are all that it starts without srun: another name says more than a 0
    names = ("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")
    told = (int(value) for name in names if (value := os.environ.get(name, "")).isdigit())
    return next((number for number in told if number), 0)


class RankedLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic only at type-checking time before Python 3.11
    """Logger that speaks on rank 0 only, or on every rank with the rank in front.

    Args:
        name: The logger's name, usually `__name__`.
        every_rank: Speak on all ranks; each message then starts with `[rank N]` when there are several.
    """

    def __init__(self, name: str, *, every_rank: bool = False) -> None:
        super().__init__(logging.getLogger(name), {})
        self.every_rank = every_rank

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Tell whether a message of `level` would be written by this rank."""
        return (self.every_rank or rank() == 0) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the rank in front of the message where there is more than one."""
        if self.every_rank and rank() == 0 and _has_many_ranks(os.environ):
            return f"[rank 0] {msg}", kwargs
        if self.every_rank and rank() > 0 and not _has_rank_prefix(logging.getLogger()):
            return f"[rank {rank()}] {msg}", kwargs
        return msg, kwargs


def _has_many_ranks(env: Mapping[str, str]) -> bool:
    return any(env.get(name, "1") not in {"", "1"} for name in ("WORLD_SIZE", "SLURM_NTASKS")) or rank() > 0


class _RankFormatter(logging.Formatter):
    """Puts the rank in front of all that a process says which is not rank 0.

    Args:
        inner: Makes the rest of the line.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"[rank {rank()}] {self.inner.format(record)}"


def _has_rank_prefix(logger: logging.Logger) -> bool:
    """Tell whether what a logger's handlers write begins with the rank."""
    return any(isinstance(handler.formatter, _RankFormatter) for handler in logger.handlers)


class _AdvertFilter(logging.Filter):
    """Drops tips with which libraries advertise other products."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "💡" not in record.getMessage()


def report_write_error_once(handler: logging.FileHandler) -> None:
    """Have a log file that cannot be written, on a full disk, said once in a line instead of each time in a traceback.

    Args:
        handler: Of the file; it goes on trying.
    """
    told: list[BaseException] = []

    def tell(_: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is not None and not told:
            told.append(error)
            sys.stderr.write(f"warning: {handler.baseFilename}: cannot be written ({error}); the run goes on\n")

    handler.handleError = tell  # type: ignore[method-assign,assignment]


# Warnings about choices that were made on purpose, or that only the library's authors can act on.
UNACTIONABLE = (
    ".*does not have many workers.*",  # data in memory is fastest without workers
    ".*Checkpoint directory .* exists and is not empty.*",  # the run directory is the run's own
    ".*Trainer already configured with model summary callbacks.*",
    ".*is smaller than the logging interval.*",  # metrics are logged once an epoch
    ".*isinstance.treespec, LeafSpec.*is deprecated.*",
    ".*The dirpath has changed from.*",  # going on in a directory of its own is what a new run does
)


def filter_library_logs(*, ignore_warnings: bool = False) -> None:
    """Send warnings to the log and drop what the user can do nothing about.

    Args:
        ignore_warnings: Drop all of Python's warnings.
    """
    for library in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # on import, Lightning adds handlers of its own: its messages would come twice, or past the run's log
        logging.getLogger(library).handlers.clear()
        logging.getLogger(library).propagate = True
    # clients of trackers count their tries aloud; that a tracker cannot be reached is said once, by the run
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            report_write_error_once(handler)
        if rank() > 0 and handler.formatter is not None and not isinstance(handler.formatter, _RankFormatter):
            handler.setFormatter(_RankFormatter(handler.formatter))
        if not any(isinstance(known, _AdvertFilter) for known in handler.filters):
            handler.addFilter(_AdvertFilter())
    logging.captureWarnings(True)
    for pattern in UNACTIONABLE:
        warnings.filterwarnings("ignore", message=pattern)
    if ignore_warnings:
        warnings.simplefilter("ignore")
