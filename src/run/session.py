"""Opens and closes a run: record, warnings, seed, status, exit code, loggers."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.base.errors import (
    FulguriteError,
    Stopped,
    find_stop,
)
from src.base.logs import RankedLogger, rank
from src.base.root import prepare_environment
from src.run.backoff import begin_again, run_with_backoff
from src.run.caches import use_writable_caches
from src.run.config_files import guard_configs
from src.run.directory import ReserveRunDirectory
from src.run.memory import keep_traceback
from src.run.metric_names import metrics_of
from src.run.outcome import JobFailed, judge, tell, tell_refusal
from src.run.processes.launched import Launch, find_launch
from src.run.ranks import find_culprit, has_lost_others, leave_word, let_rank_zero_end
from src.run.record import Record
from src.run.resume.runs import owned
from src.run.resume.words import written_out
from src.run.signals import signals
from src.run.sweeps.one_job import alone
from src.run.tags import require_tags, tag_names

log = RankedLogger(__name__)


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
            tell(error, outcome, _advice(cfg))
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
            tell_refusal(error)
        raise SystemExit(error.outcome.exit_code if isinstance(error, JobFailed) else error.exit_code) from error
    except Exception as error:
        from src.run.composition import explain_composition

        explained = explain_composition(error, sys.argv[1:])
        if explained is None:
            raise
        tell_refusal(explained)
        raise SystemExit(explained.exit_code) from error
    finally:
        signals.restore()
        if "src.run.processes.group" in sys.modules:
            sys.modules["src.run.processes.group"].leave_file()
        if Launch.current is not None:
            from src.run.processes.meeting import end_meeting

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
