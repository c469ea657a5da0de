"""What does an error that ended a run mean, and who says it how? Status, reason, exit code; lines at the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from omegaconf import DictConfig

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
    find_interrupt,
    is_disk_full,
    is_out_of_memory,
)
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.dataloading.worker_errors import explain_worker_failure
from fulgurite.distributed.launch_env import current_launch
from fulgurite.engine.oom_errors import explain_out_of_memory, keep_traceback

log = RankedLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended, for run.json and for the process."""

    status: str
    reason: str
    exit_code: int


class JobFailed(FulguriteError):
    """A job of a sweep failed; it has told why itself."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[JobFailed], tuple[Outcome]]:
        return type(self), (self.outcome,)


def classify_error(error: BaseException, cfg: DictConfig | None = None) -> Outcome:
    """Return what an error that ended a run means.

    Args:
        error: What was raised.
        cfg: The run's config, for the values that the advice names.
    """
    if (killed := _killed(error)) is not None:
        return killed
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    if isinstance(error, Pruned):
        return Outcome("pruned", str(error), EXIT_DONE)
    if isinstance(error, FulguriteError):
        return Outcome("failed", "; ".join(str(error).splitlines()), error.exit_code)
    if type(error).__name__ == "MisconfigurationException":
        return Outcome("failed", reason, EXIT_USER)
    if explained := explain_out_of_memory(reason, cfg) if is_out_of_memory(error) else explain_worker_failure(error):
        return Outcome("failed", explained, EXIT_CRASH)
    if is_disk_full(error):
        return Outcome("failed", f"{reason}; free space or write elsewhere with paths.log_dir=<folder>", EXIT_USER)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else EXIT_CRASH
        return Outcome("failed", f"the program ended itself with code {code}", code or EXIT_CRASH)
    return Outcome("failed", reason, EXIT_CRASH)


def _killed(error: BaseException) -> Outcome | None:
    """Return the outcome of a run that a signal has ended, else None."""
    if (stop := find_interrupt(error)) is not None:
        return Outcome("killed", str(stop), stop.exit_code)
    # in a process that does not listen to signals by our rules, Lightning ends the program itself
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return Outcome("killed", "interrupted (SIGINT)", EXIT_INTERRUPTED)
    if type(error).__name__ == "SIGTERMException":
        return Outcome("killed", "terminated (SIGTERM)", EXIT_TERMINATED)
    return None


def log_outcome(error: BaseException, outcome: Outcome, advice: str) -> None:
    """Log how a run ended.

    Args:
        error: What ended it.
        outcome: What that means.
        advice: How a run that a signal has stopped goes on.
    """
    if (stop := find_interrupt(error)) is not None:
        stop.reported = True
        log.error("%s%s", outcome.reason, advice)
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


def print_error(error: FulguriteError) -> None:
    """Say at the terminal what ended this process before there was a run, a line a finding; once a machine.

    Args:
        error: What the user got wrong; what rank 0 has refused is said by rank 0.
    """
    launch = current_launch()
    if launch is None or (launch.is_local_leader and not isinstance(error, RefusedByRankZero)):
        for line in str(error).splitlines():
            sys.stderr.write(f"{launch.prefix if launch else ''}error: {line}\n")
