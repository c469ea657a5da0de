"""Log on rank 0 or on every rank with the rank in front, and filter the logs of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from typing import Any


def rank() -> int:
    """Return the global rank from the variables of torchrun, srun, mpiexec or Lightning; 0 without them."""
    if os.environ.get("RANK", "").isdigit():
        return int(os.environ["RANK"])
    # Slurm sets SLURM_PROCID=0 for a batch script and its children: a nonzero value of another variable wins
    names = ("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")
    ranks = (int(value) for name in names if (value := os.environ.get(name, "")).isdigit())
    return next((number for number in ranks if number), 0)


class RankedLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic only at type-checking time before Python 3.11
    """A logger for rank 0 only, or for every rank with the rank in front.

    Args:
        name: The logger's name, usually `__name__`.
        every_rank: Log on all ranks; messages start with `[rank N]` when there are several.
    """

    def __init__(self, name: str, *, every_rank: bool = False) -> None:
        super().__init__(logging.getLogger(name), {})
        self.every_rank = every_rank

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Return whether this rank logs messages of `level`."""
        return (self.every_rank or rank() == 0) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the rank in front of the message when there are several ranks."""
        if self.every_rank and rank() == 0 and _has_many_ranks(os.environ):
            return f"[rank 0] {msg}", kwargs
        if self.every_rank and rank() > 0 and not _has_rank_prefix(logging.getLogger()):
            return f"[rank {rank()}] {msg}", kwargs
        return msg, kwargs


def _has_many_ranks(env: Mapping[str, str]) -> bool:
    return any(env.get(name, "1") not in {"", "1"} for name in ("WORLD_SIZE", "SLURM_NTASKS")) or rank() > 0


class _RankFormatter(logging.Formatter):
    """A formatter that puts the rank in front of each line.

    Args:
        inner: Formats the rest of the line.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with the rank in front."""
        return f"[rank {rank()}] {self.inner.format(record)}"


def _has_rank_prefix(logger: logging.Logger) -> bool:
    """Return whether a logger's handlers put the rank in front."""
    return any(isinstance(handler.formatter, _RankFormatter) for handler in logger.handlers)


class _AdvertFilter(logging.Filter):
    """A filter that drops the tips in which libraries advertise products."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "💡" not in record.getMessage()


def report_write_error_once(handler: logging.FileHandler) -> None:
    """Report a log file that is not writable once in a line, instead of each time in a traceback.

    Args:
        handler: The handler of the file; it continues to try.
    """
    reported: list[BaseException] = []

    def report(_: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is not None and not reported:
            reported.append(error)
            sys.stderr.write(f"warning: {handler.baseFilename}: not writable ({error}). The run continues.\n")

    handler.handleError = report  # type: ignore[method-assign,assignment]


# Warnings about deliberate choices, or that only the library's authors can act on.
UNACTIONABLE = (
    ".*does not have many workers.*",  # data in memory is fastest without workers
    ".*Checkpoint directory .* exists and is not empty.*",  # the run directory is the run's own
    ".*Trainer already configured with model summary callbacks.*",
    ".*is smaller than the logging interval.*",  # metrics are logged once an epoch
    ".*isinstance.treespec, LeafSpec.*is deprecated.*",
    ".*The dirpath has changed from.*",  # a new run that continues another has its own directory
)


def filter_library_logs(*, ignore_warnings: bool = False) -> None:
    """Send warnings to the log, and drop those that the user cannot act on.

    Args:
        ignore_warnings: Drop all Python warnings.
    """
    for library in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # Lightning adds its own handlers on import: its messages would be logged twice, or outside the run's log
        logging.getLogger(library).handlers.clear()
        logging.getLogger(library).propagate = True
    # logger clients log every retry; the run reports an unreachable logger once
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            report_write_error_once(handler)
        if rank() > 0 and handler.formatter is not None and not isinstance(handler.formatter, _RankFormatter):
            handler.setFormatter(_RankFormatter(handler.formatter))
        if not any(isinstance(present, _AdvertFilter) for present in handler.filters):
            handler.addFilter(_AdvertFilter())
    logging.captureWarnings(True)
    for pattern in UNACTIONABLE:
        warnings.filterwarnings("ignore", message=pattern)
    if ignore_warnings:
        warnings.simplefilter("ignore")
