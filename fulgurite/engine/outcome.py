"""Classify the error that ended a run as status, reason and exit code, and report it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.left_out import take_messages
from fulgurite.core.errors import (
    EXIT_CRASH,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USER,
    ConfigError,
    FulguriteError,
    Pruned,
    RankFailed,
    RefusedByRankZero,
    UserError,
    explain_file_error,
    find_interrupt,
    is_disk_full,
    is_out_of_memory,
    printable,
)
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import hide_secrets
from fulgurite.dataloading.worker_errors import explain_worker_failure
from fulgurite.distributed.launch_env import current_launch
from fulgurite.engine.components.missing_metric import explain_missing_metric
from fulgurite.sources.secrets import explain_resolution
from fulgurite.trust.composed import explain_folder

log = RankedLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended, for run.json and for the process."""

    status: str
    reason: str
    exit_code: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", "\n".join(_lines(self.reason)))


class JobFailed(FulguriteError):
    """A sweep job failed, and has reported the reason."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[JobFailed], tuple[Outcome]]:
        return type(self), (self.outcome,)


def _lines(text: str) -> list[str]:
    """Return the lines of a message, without secrets and control characters."""
    return [printable(line) for line in hide_secrets(text).split("\n")]


def classify_error(error: BaseException, cfg: DictConfig | None = None) -> Outcome:
    """Return status, reason and exit code of a run that an error ended; the remedy names values of `cfg`."""
    if (killed := _classify_interrupt(error)) is not None:
        return killed
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    if isinstance(error, Pruned):
        return Outcome("pruned", str(error), EXIT_DONE)
    if isinstance(error, FulguriteError):
        if isinstance(error, UserError) and cfg is not None:
            from fulgurite.engine.components.places import add_places  # only after an error

            add_places(error, cfg)
        return Outcome("failed", "; ".join(str(error).splitlines()), error.exit_code)
    missing = explain_missing_metric(error)
    if missing is not None or type(error).__name__ == "MisconfigurationException":
        return Outcome("failed", missing or reason, EXIT_USER)
    if explained := _explain_out_of_memory(reason, cfg) if is_out_of_memory(error) else explain_worker_failure(error):
        return Outcome("failed", explained, EXIT_CRASH)
    from fulgurite.engine.components.causes import explain_usage  # only after an error

    explained = (
        explain_resolution(error)
        or explain_usage(error, cfg)
        or explain_file_error(error, cfg)
        or explain_folder(error, cfg)
    )
    if explained:
        return Outcome("failed", explained, EXIT_USER)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else EXIT_CRASH
        return Outcome("failed", f"the program called sys.exit with code {code}", code or EXIT_CRASH)
    return Outcome("failed", reason, EXIT_CRASH)


def _classify_interrupt(error: BaseException) -> Outcome | None:
    """Return the outcome of a run that a signal stopped; None for any other error."""
    if (stop := find_interrupt(error)) is not None:
        return Outcome("killed", str(stop), stop.exit_code)
    # without `shutdown.signals`, Lightning's own handlers raise these
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return Outcome("killed", "interrupted (SIGINT)", EXIT_INTERRUPTED)
    if type(error).__name__ == "SIGTERMException":
        return Outcome("killed", "terminated (SIGTERM)", EXIT_TERMINATED)
    return None


def _explain_out_of_memory(reason: str, cfg: DictConfig | None) -> str:
    """Return one line with the batch size, what to try and the reason."""
    from fulgurite.engine.components.causes import addition  # only after an error

    cfg = cfg if cfg is not None else OmegaConf.create()
    size, accumulation = (OmegaConf.select(cfg, key) for key in ("data.batch_size", "trainer.accumulate_grad_batches"))
    size = size if isinstance(size, int) else None
    accumulation = accumulation if isinstance(accumulation, int) else 1
    remedies = []
    if size is None or size > 1:
        half = f"data.batch_size={size // 2}" if size else "half the data.batch_size"
        remedies.append(f"{half} {addition(cfg, 'trainer.accumulate_grad_batches')}={accumulation * 2}")
    if "32" in str(OmegaConf.select(cfg, "trainer.precision", default="32-true")):
        remedies.append(f"{addition(cfg, 'trainer.precision')}=bf16-mixed")
    remedies.append("a smaller net")
    with_size = f" with data.batch_size={size}" if size else ""
    return f"out of memory{with_size}: try {', or '.join(remedies)} ({' '.join(reason.split())[:200]})"


def log_outcome(error: BaseException, outcome: Outcome, resume_hint: str) -> None:
    """Log how a run ended, once; after a signal with the hint how to resume it."""
    if vars(error).get("is_reported"):
        return
    vars(error)["is_reported"] = True
    if (stop := find_interrupt(error)) is not None:
        stop.reported = True
        log.error("%s%s", outcome.reason, resume_hint)
    elif is_disk_full(error):
        print_error(UserError(outcome.reason))  # not to the log file, which is on the same disk
    elif isinstance(error, Pruned):
        log.info("pruned: %s", outcome.reason)
    elif isinstance(error, ConfigError):
        for finding in error.findings:
            log.error("%s", finding)
    elif is_out_of_memory(error) or isinstance(error, RankFailed) or explain_worker_failure(error):
        log.error("%s", outcome.reason)
        keep_traceback(error)
    elif outcome.exit_code == EXIT_CRASH:
        log.error("the run crashed", exc_info=error)
    else:
        log.error("%s", outcome.reason)


def keep_traceback(error: BaseException) -> None:
    """Write an error's traceback to the log files only."""
    exc_info = (type(error), error, error.__traceback__)
    record = logging.getLogger(__name__).makeRecord(__name__, logging.ERROR, __file__, 0, "traceback", (), exc_info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def print_error(error: FulguriteError) -> None:
    """Write an error before the run, and what composing left out, to standard error, once per machine."""
    from fulgurite.terminal.color_handler import colored, wrapped  # only after an error

    launch = current_launch()
    if launch is None or (launch.is_local_leader and not isinstance(error, RefusedByRankZero)):
        lines = [(f"error: {line}", logging.ERROR) for line in _lines(str(error))]
        for text, level in [*lines, *((f"info: {line}", logging.INFO) for line in take_messages())]:
            shown = colored(wrapped(text) if sys.stderr.isatty() else text, level, sys.stderr)
            sys.stderr.write(f"{launch.prefix if launch else ''}{shown}\n")


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Exit on a user's error before the run; in a callback Hydra would turn it into a warning and continue."""
    try:
        yield
    except FulguriteError as error:
        print_error(error)
        raise SystemExit(error.exit_code) from error
