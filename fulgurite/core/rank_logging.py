"""Log on rank 0 or on every rank with the rank in front, and filter the logs of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import MutableMapping
from typing import Any

from fulgurite.core.formatting import parse_count


def rank() -> int:
    """Return the global rank from the variables of torchrun, srun, mpiexec or Lightning; 0 without them."""
    if (given := parse_count(os.environ.get("RANK", ""))) is not None:
        return given
    # Slurm sets SLURM_PROCID=0 for a batch script and its children: a nonzero value of another variable wins
    names = ("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")
    return next((number for name in names if (number := parse_count(os.environ.get(name, "")))), 0)


class RankedLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic only at type-checking time before Python 3.11
    """A logger for rank 0 only, or for every rank with `[rank N]` in front."""

    def __init__(self, name: str, *, every_rank: bool = False) -> None:
        super().__init__(logging.getLogger(name), {})
        self.every_rank = every_rank

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Return whether this rank logs messages of `level`."""
        return (self.every_rank or rank() == 0) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the rank in front of the message when there are several ranks."""
        sizes = {os.environ.get(name, "1") for name in ("WORLD_SIZE", "SLURM_NTASKS")}
        has_many_ranks = rank() > 0 or not sizes <= {"", "1"}
        has_prefix = any(isinstance(handler.formatter, _RankFormatter) for handler in logging.getLogger().handlers)
        if self.every_rank and has_many_ranks and not has_prefix:
            return f"[rank {rank()}] {msg}", kwargs
        return msg, kwargs


class _RankFormatter(logging.Formatter):
    """A formatter that puts the rank in front of each line of `inner`."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line with the rank in front."""
        return f"[rank {rank()}] {self.inner.format(record)}"


# Lightning's messages that repeat another line: of the missing TPU, the last epoch, the checkpoint
REPEATED = (
    "TPU available: False",
    "`Trainer.fit` stopped: `max_epochs=",
    "Restoring states from the checkpoint path",
    "Restored all states from the checkpoint at",
    "Loaded model weights from the checkpoint at",
)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record is neither a tip in which a library advertises products nor one of `REPEATED`."""
    if record.name == "py.warnings":  # Python ends them with an empty line
        record.msg, record.args = record.getMessage().rstrip(), ()
    message = record.getMessage()
    return "💡" not in message and not message.startswith(REPEATED)


def report_write_error_once(handler: logging.FileHandler) -> None:
    """Report a log file that is not writable once in a line, without a traceback."""
    reported: list[BaseException] = []

    def report(_: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is not None and not reported:
            reported.append(error)
            sys.stderr.write(f"warning: {handler.baseFilename}: not writable ({error}). The run continues.\n")

    handler.handleError = report  # type: ignore[method-assign,assignment]


def guard_log_files() -> None:
    """Let no log file that is not writable print a traceback for each message."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            report_write_error_once(handler)


# Warnings about deliberate choices, or that only the library's authors can act on.
UNACTIONABLE = (
    ".*does not have many workers.*",  # data in memory is fastest without workers
    ".*Checkpoint directory .* exists and is not empty.*",  # the run directory is the run's own
    ".*Trainer already configured with model summary callbacks.*",
    ".*is smaller than the logging interval.*",  # metrics are logged once an epoch
    ".*is an instance of `nn.Module` and is already saved during checkpointing.*",  # one line names all of them
    ".*isinstance.treespec, LeafSpec.*is deprecated.*",
    r".*torch\.distributed\.nn\.functional\.all_gather is deprecated.*",  # Lightning calls it for torchmetrics
)


def filter_library_logs(*, ignore_warnings: bool = False) -> None:
    """Send warnings to the log, and drop those that the user cannot act on, or all."""
    for library in ("lightning", "lightning.pytorch", "lightning.fabric"):
        # Lightning adds its own handlers on import: its messages would be logged twice, or outside the run's log
        logging.getLogger(library).handlers.clear()
        logging.getLogger(library).propagate = True
    # logger clients log every retry; the run reports an unreachable logger once
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    guard_log_files()
    for handler in logging.getLogger().handlers:
        if rank() > 0 and handler.formatter is not None and not isinstance(handler.formatter, _RankFormatter):
            handler.setFormatter(_RankFormatter(handler.formatter))
        handler.addFilter(_is_news)
    logging.captureWarnings(True)
    for pattern in UNACTIONABLE:
        warnings.filterwarnings("ignore", message=pattern)
    if ignore_warnings:
        warnings.simplefilter("ignore")
