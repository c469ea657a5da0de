"""Opens and closes a run: record, warnings, seed, status, exit code, loggers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fulgurite.config.tags import require_tags, tag_names
from fulgurite.core.errors import find_stop
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.distributed.launch_env import Launch
from fulgurite.distributed.supervision.failures import find_culprit, has_lost_others, leave_word, let_rank_zero_end
from fulgurite.engine.oom_errors import keep_traceback
from fulgurite.engine.oom_retry import begin_again
from fulgurite.engine.outcome import judge, tell
from fulgurite.engine.record import RunRecord
from fulgurite.runs.lock import owned
from fulgurite.shutdown.signals import signals

log = RankedLogger(__name__)


@contextmanager
def session(cfg: DictConfig) -> Iterator[RunRecord]:
    """Keep the record of a run and tell, in it and at the terminal, how the run ended.

    Args:
        cfg: A composed config.

    Yields:
        The run's record.
    """
    with owned(Path(cfg.paths.output_dir)):
        yield from _recorded(cfg)


def _recorded(cfg: DictConfig) -> Iterator[RunRecord]:
    signals.begin_run()
    signals.hold()
    record = RunRecord(cfg, sweep=_sweep())
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
