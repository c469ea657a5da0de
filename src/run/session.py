"""Opens and closes a run: record, warnings, seed, status, exit code, loggers."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.base.errors import (
    EXIT_CRASH,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USER,
    ConfigError,
    FulguriteError,
    Pruned,
    RankFailed,
    Stopped,
    find_stop,
    is_disk_full,
    is_out_of_memory,
)
from src.base.logs import RankedLogger, rank
from src.base.root import prepare_environment
from src.run.backoff import begin_again, run_with_backoff
from src.run.caches import use_writable_caches
from src.run.config_files import guard_configs
from src.run.directory import ReserveRunDirectory
from src.run.memory import explain_out_of_memory, keep_traceback
from src.run.processes.launched import Launch, find_launch
from src.run.processes.meeting import Refused, end_meeting
from src.run.ranks import find_culprit, has_lost_others, leave_word, let_rank_zero_end
from src.run.record import Record
from src.run.resume.runs import owned
from src.run.resume.words import written_out
from src.run.search.settings import metrics_of
from src.run.signals import signals
from src.run.sweeps.one_job import alone
from src.run.tags import require_tags, tag_names
from src.run.workers import explain_lost_worker

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


@contextmanager
def session(cfg: DictConfig) -> Iterator[Record]:
    """Keep the record of a run and tell, in it and at the terminal, how the run ended.

    Args:
        cfg: A composed config.

    Yields:
        The run's record.
    """
    with owned(Path(cfg.paths.output_dir)):
        yield from _recorded(cfg)


def _recorded(cfg: DictConfig) -> Iterator[Record]:
    signals.begin_run()
    signals.hold()
    record = Record(cfg, sweep=_sweep())
    try:
        signals.heed()
        with warnings.catch_warnings():
            require_tags(cfg)
            record.write(tags=tag_names(cfg))
            yield record
    except BaseException as error:
        if find_stop(error) is None and (again := begin_again(cfg)) is not None:
            keep_traceback(error)
            record.close_loggers(failed=True)
            raise again from error
        with signals.held():
            culprit = find_culprit(record.folder) if Launch.current is not None and find_stop(error) else None
            outcome = judge(culprit or error, cfg)
            _tell(error, outcome, _advice(cfg))
            if rank() > 0 and find_stop(error) is None and outcome.status == "failed":
                keep_traceback(error)
                leave_word(record.folder, outcome.reason, outcome.exit_code, waited=has_lost_others(error))
                let_rank_zero_end(record.folder)
            try:
                record.close(outcome.status, outcome.reason, outcome.exit_code)
            except OSError as failure:  # must not hide how the run ended
                log.error("%s: how the run ended cannot be written (%s)", record.folder, failure.strerror or failure)
        record.close_loggers(failed=outcome.status != "pruned")
        raise
    with signals.held():
        record.close("done", None, 0)
    record.close_loggers(failed=False)


def set_seed(seed: int | None) -> None:
    """Seed python, numpy, torch and the workers of data loaders.

    Args:
        seed: 0 is a seed like any other; None leaves all as it is.
    """
    if seed is not None:
        from lightning.pytorch import seed_everything

        seed_everything(seed, workers=True, verbose=False)


def judge(error: BaseException, cfg: DictConfig | None = None) -> Outcome:
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
    if explained := explain_out_of_memory(reason, cfg) if is_out_of_memory(error) else explain_lost_worker(error):
        return Outcome("failed", explained, EXIT_CRASH)
    if is_disk_full(error):
        return Outcome("failed", f"{reason}; free space or write elsewhere with paths.log_dir=<folder>", EXIT_USER)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else EXIT_CRASH
        return Outcome("failed", f"the program ended itself with code {code}", code or EXIT_CRASH)
    return Outcome("failed", reason, EXIT_CRASH)


def _killed(error: BaseException) -> Outcome | None:
    """Return the outcome of a run that a signal has ended, else None."""
    if (stop := find_stop(error)) is not None:
        return Outcome("killed", str(stop), stop.exit_code)
    # in a process that does not listen to signals by our rules, Lightning ends the program itself
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return Outcome("killed", "interrupted (SIGINT)", EXIT_INTERRUPTED)
    if type(error).__name__ == "SIGTERMException":
        return Outcome("killed", "terminated (SIGTERM)", EXIT_TERMINATED)
    return None


def run_task(task: Callable[[DictConfig], dict[str, float]], cfg: DictConfig) -> float | list[float] | None:
    """Run a door's task under Hydra and end a failed single run with its exit code.

    Args:
        task: Takes the config and returns metrics by name.
        cfg: A composed config.

    Returns:
        The metric named by `optimized_metric`, for sweeps; a list for several. None too where a trial was pruned.

    Raises:
        JobFailed: A job of a sweep failed; the sweep decides whether to go on.
        Stopped: A signal ended the run, and the sweep with it.
        SystemExit: A single run failed.
    """
    gc.enable()
    try:
        with alone() if _sweep() is not None else nullcontext():
            metrics = run_with_backoff(task, cfg)
    except BaseException as error:
        if (stop := find_stop(error)) is not None:
            raise stop from None
        outcome = judge(error, cfg)
        if outcome.status == "pruned" and _sweep() is not None:
            return None
        # a job that ends itself with sys.exit ends no sweep; one that was interrupted does
        ends_job = isinstance(error, Exception) or (isinstance(error, SystemExit) and outcome.status == "failed")
        if ends_job and _sweep() is not None:
            raise JobFailed(outcome) from error
        raise SystemExit(outcome.exit_code) from error
    wanted = [metrics[name] for name in metrics_of(cfg)]
    return wanted if len(wanted) > 1 else wanted[0] if wanted else None


def enter(main: Callable[[], Any]) -> None:
    """Call a door's `@hydra.main` function; what Hydra refuses before a run starts is told in lines a user can act on.

    Args:
        main: The decorated function.
    """
    # Hydra would otherwise print its own summary and end with 1; the errors are ours to tell
    os.environ["HYDRA_FULL_ERROR"] = "1"
    gc.disable()  # composing makes many small objects and no garbage: a fifth of the time would go to looking for it
    prepare_environment()
    use_writable_caches(os.environ)
    guard_configs()
    Record.typed = list(sys.argv)
    Launch.current = find_launch(os.environ)
    signals.install()
    try:
        sys.argv[1:] = written_out(sys.argv[1:], Path(sys.argv[0]).stem)
        main()
    except Stopped as stop:
        signals.end_ranks()
        _tell_stop(stop)
        raise SystemExit(stop.exit_code) from None
    except FulguriteError as error:
        if not isinstance(error, JobFailed):
            _write_findings(error)
        raise SystemExit(error.outcome.exit_code if isinstance(error, JobFailed) else error.exit_code) from error
    except Exception as error:
        from src.run.composition import explain_composition

        explained = explain_composition(error, sys.argv[1:])
        if explained is None:
            raise
        _write_findings(explained)
        raise SystemExit(explained.exit_code) from error
    finally:
        signals.restore()
        if "src.run.processes.group" in sys.modules:
            sys.modules["src.run.processes.group"].leave_file()
        end_meeting()
        # Hydra's own hook for the end of a sweep is not called when a job has failed
        if ReserveRunDirectory.sweep is not None and ReserveRunDirectory.sweep.is_dir() and rank() == 0:
            from src.run.sweep import conclude_sweep

            conclude_sweep(ReserveRunDirectory.sweep)


def _sweep() -> dict[str, Any] | None:
    """Return directory and job number of the sweep this job belongs to; None in a single run or without Hydra."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    hydra = HydraConfig.get()
    return {"dir": str(hydra.sweep.dir), "job": hydra.job.num}


def _advice(cfg: DictConfig) -> str:
    """Return how a stopped run goes on, a part of a sentence; empty where nothing was trained."""
    if "resume" not in cfg:
        return ""
    if _sweep() is None:
        return "; to go on, give the same command with resume=auto"
    return f"; to go on: python src/train.py resume={cfg.paths.output_dir}"


def _tell(error: BaseException, outcome: Outcome, advice: str) -> None:
    if (stop := find_stop(error)) is not None:
        stop.told = True
        log.error("%s%s", outcome.reason, advice)
    elif isinstance(error, Pruned):
        log.info("pruned: %s", outcome.reason)
    elif isinstance(error, ConfigError):
        for finding in error.findings:
            log.error("%s", finding)
    elif is_out_of_memory(error) or isinstance(error, RankFailed) or explain_lost_worker(error):
        log.error("%s", outcome.reason)
        keep_traceback(error)
    elif outcome.exit_code == EXIT_CRASH:
        log.error("the run crashed", exc_info=error)
    else:
        log.error("%s", outcome.reason)


def _tell_stop(stop: Stopped) -> None:
    if rank() > 0:
        return
    if ReserveRunDirectory.sweep is not None:
        from src.run.sweep import tell_stop

        line = tell_stop(ReserveRunDirectory.sweep, ReserveRunDirectory.config, stop.signal_name)
        goes_on = f"; to go on: the same command with sweep.resume={ReserveRunDirectory.sweep}"
        sys.stderr.write(f"{line}{goes_on if ReserveRunDirectory.can_go_on else ''}\n")
    elif not stop.told:
        sys.stderr.write(f"{stop} before the run began\n")


def _write_findings(error: FulguriteError) -> None:
    launch = Launch.current
    if launch is None or (launch.speaks and not isinstance(error, Refused)):
        for line in str(error).splitlines():
            sys.stderr.write(f"{launch.prefix if launch else ''}error: {line}\n")
