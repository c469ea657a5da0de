"""Open and close a run: lock, record, warnings, signals, status, exit code, loggers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fulgurite.checkpoints.manifest import LAST, previous_of
from fulgurite.compat.hydra import is_sweep_job
from fulgurite.config.tags import require_tags, tag_names
from fulgurite.core.errors import EXIT_CRASH, find_interrupt, is_disk_full
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.distributed.launch_env import current_launch
from fulgurite.distributed.supervision.failures import is_peer_loss, root_cause, wait_for_rank_zero, write_failure
from fulgurite.engine.oom_retry import plan_retry
from fulgurite.engine.outcome import classify_error, keep_traceback, log_outcome
from fulgurite.engine.record import RunRecord
from fulgurite.runs.lock import run_lock
from fulgurite.shutdown.process_exit import reported_exit
from fulgurite.shutdown.signals import signal_handler
from fulgurite.validation.validate import require_valid

log = RankedLogger(__name__)


@contextmanager
def session(cfg: DictConfig) -> Iterator[RunRecord]:
    """Open a run, yield its record, and record and log how the run ended.

    Example:
        >>> with fulgurite.session(cfg) as session:
        ...     session.log_results({"test/acc": 0.9})
        ...     metrics = session.finish("test/acc")
    """
    with run_lock(Path(cfg.paths.output_dir)):
        yield from _managed_run(cfg)


def _managed_run(cfg: DictConfig) -> Iterator[RunRecord]:
    signals = signal_handler()
    signals.reset_run()
    signals.defer()
    with _explained_values(cfg):
        record = RunRecord(cfg, sweep=_current_job())
    try:
        signals.check()
        # rank 0 names an exit of another rank
        exit_report = reported_exit(partial(_report_exit, record)) if rank() == 0 else nullcontext()
        with warnings.catch_warnings(), exit_report:
            with _explained_values(cfg):
                require_tags(cfg)
            record.write(tags=tag_names(cfg))
            yield record
    except BaseException as error:
        if find_interrupt(error) is None and (retry := plan_retry(cfg)) is not None:
            keep_traceback(error)
            record.close_loggers(failed=True)
            raise retry from error
        with signals.deferred():
            cause = root_cause(record.folder) if current_launch() is not None and find_interrupt(error) else None
            outcome = classify_error(cause or error, cfg)
            log_outcome(error, outcome, _resume_hint(cfg))
            if rank() > 0 and find_interrupt(error) is None and outcome.status == "failed":
                keep_traceback(error)
                write_failure(record.folder, outcome.reason, outcome.exit_code, secondary=is_peer_loss(error))
                wait_for_rank_zero(record.folder)
            try:
                record.close(outcome.status, outcome.reason, outcome.exit_code)
            except OSError as failure:  # must not hide how the run ended
                if record.folder.is_dir() and not is_disk_full(error):  # else the line above names the cause
                    why = failure.strerror or failure
                    log.error("%s: the end of the run cannot be recorded (%s)", record.folder, why)
        record.close_loggers(failed=outcome.status != "pruned")
        raise
    with signals.deferred():
        record.close("done", None, 0)
    record.close_loggers(failed=False)


@contextmanager
def _explained_values(cfg: DictConfig) -> Iterator[None]:
    """Report a value that does not resolve as `validate`, which runs later, does."""
    try:
        yield
    except OmegaConfBaseException:
        require_valid(cfg)
        raise


def _report_exit(record: RunRecord, code: int) -> None:
    """Log and record that `os._exit` ended the run."""
    reason, exit_code = f"the program called os._exit with code {code}", code or EXIT_CRASH
    log.error("%s", reason)
    record.close("failed", reason, exit_code)


def _current_job() -> dict[str, Any] | None:
    """Return sweep directory and job number; None in a single run or without Hydra."""
    if not is_sweep_job():
        return None
    hydra = HydraConfig.get()
    return {"dir": str(hydra.sweep.dir), "job": hydra.job.num}


def _resume_hint(cfg: DictConfig) -> str:
    """Return how to resume a stopped run, part of a sentence; empty where nothing can be resumed."""
    last = Path(cfg.paths.output_dir) / "checkpoints" / LAST
    if "resume" not in cfg or not (last.is_file() or previous_of(last).is_file()):
        return ""
    if not is_sweep_job():
        return "; to resume, run the same command with resume=auto"
    return f"; to resume: python src/train.py resume={cfg.paths.output_dir}"
