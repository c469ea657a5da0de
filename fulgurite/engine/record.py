"""What a run leaves behind for people and tools: run.json, results.json, and its hyperparameters in every logger.

`run.json` (rank 0 writes it, whole, at the start and at every change):

    task_name     the door's name or what the config says        status      running, done, failed, killed, pruned
    reason        why it is not done, one line, or null          exit_code   see base/errors.py, null while running
    start, end    UTC, ISO 8601; end is null while running       host, pid   where it ran
    torchrun      host, process id and start of the torchrun whose process this is, or null
    ranks         processes of the run                           command     as it was typed, secrets excepted
    seed          as configured, null when unseeded              tags        list of names
    git           {commit, dirty} or null outside a checkout     versions    {package: version}
    config_hash   sha256 of what decides the result              sweep       {dir, job} or null
    loggers       {name in the config: ID of the logger's run}  parameters  {total, trainable}, null before the model
    oom_backoff   {batch_size: [asked for, halved]} of a run that ran out of memory with callbacks=oom_backoff, or null
    resumed       a list, one {start, step, checkpoint, command} for each time it went on with resume=

What a run says of itself (seed, tags, git, versions, config_hash) is of the last start that came to train.

`results.json` holds `metrics` (name to number) and `weights` (the checkpoint they were measured on, relative to the
run directory; null for the weights in memory).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.tags import tag_names
from fulgurite.core.context import current_context
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import show_results
from fulgurite.core.metric_names import as_names
from fulgurite.core.project import project_root
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import mask_config, mask_override
from fulgurite.distributed.launch_env import torchrun_restart
from fulgurite.runs.layout import RECORD, RESULTS
from fulgurite.runs.provenance import config_hash, git_state, versions
from fulgurite.runs.run_directory import resumed_run, utc_now
from fulgurite.runs.sweep_ledger import record_event
from fulgurite.shutdown.signals import signal_handler

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from fulgurite.engine.build import Run
    from fulgurite.resume.restore import ResumedRun
    from fulgurite.study.pruning import PruningCallback

log = RankedLogger(__name__)

# Facts that every start of a run tells anew, and those that are told anew when it has come to train.
OF_START = ("status", "reason", "exit_code", "end", "host", "pid", "ranks", "torchrun", "command", "oom_backoff")
OF_TRAINING = ("seed", "tags", "git", "versions", "config_hash")


class RunRecord:
    """The record of one run, kept in its directory.

    Args:
        cfg: A composed config.
        sweep: Directory and job number of the sweep the run belongs to, or None.
    """

    def __init__(self, cfg: DictConfig, sweep: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(cfg.paths.output_dir)
        argv = current_context().argv
        self.loggers: list[Logger] = []
        self.pruning: PruningCallback | None = None
        self.results: dict[str, Any] = {"metrics": {}, "weights": None}
        self.facts: dict[str, Any] = {
            "task_name": cfg.get("task_name"),
            "status": "running",
            "reason": None,
            "exit_code": None,
            "start": utc_now(),
            "end": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "ranks": 1,
            "torchrun": torchrun_restart()[1],
            "command": [Path(argv[0]).name, *map(mask_override, argv[1:])],
            "seed": cfg.get("seed"),
            "tags": tag_names(cfg),
            "git": git_state(project_root()),
            "versions": versions(),
            "config_hash": config_hash(cfg),
            "sweep": dict(sweep) if sweep else None,
            "loggers": {},
            "parameters": None,
            "oom_backoff": _halved(cfg),
            "resumed": [],
        }
        self._of_this_start: dict[str, Any] = {}
        if (earlier := resumed_run(cfg)) is not None:
            self._of_this_start = {name: self.facts[name] for name in OF_TRAINING}
            self.facts |= {name: value for name, value in earlier.record.items() if name not in OF_START}
        self.write()
        record_event(self.facts["sweep"], "started", run=self.folder)

    def write(self, **facts: Any) -> None:
        """Set some facts and write the file, whole; other ranks than 0 write nothing."""
        self.facts.update(facts)
        if rank() == 0:
            write_atomic(self.folder / RECORD, json.dumps(self.facts, indent=2) + "\n")

    def log_hyperparameters(self, run: Run) -> None:
        """Note what was built, and tell every logger the hyperparameters."""
        from fulgurite.loggers import adapters
        from fulgurite.study.pruning import find_pruning_callback

        trainer, parameters = run.trainer, count_parameters(run)
        self.loggers, self.pruning = list(trainer.loggers), find_pruning_callback(trainer)
        if self._of_this_start and self._of_this_start["git"] != self.facts["git"]:
            shown = [_shown_commit(facts["git"]) for facts in (self.facts, self._of_this_start)]
            log.warning("resume: the code is other code than the run's: commit %s -> %s", *shown)
        self.facts |= self._of_this_start
        if run.resumed_from is not None:
            self.facts["resumed"] = [*self.facts["resumed"], self._resumed(run.resumed_from, run.cfg.ckpt_path)]
        self.write(ranks=trainer.world_size, parameters=parameters, loggers=self._ids())
        hyperparameters = {**mask_config(run.cfg), "tags": self.facts["tags"], "parameters": parameters}
        adapters.log_hyperparameters(trainer.loggers, hyperparameters, self.facts["tags"])

    def _ids(self) -> dict[str, str]:
        """Return the ID of each logger's run; a logger that has none now keeps its earlier one."""
        from fulgurite.loggers.guarded import run_ids

        return {**self.facts["loggers"], **run_ids(self.loggers)}

    def _resumed(self, earlier: ResumedRun, checkpoint: str | None) -> dict[str, Any]:
        name = Path(checkpoint).name if checkpoint else None
        return {"start": utc_now(), "step": earlier.step, "checkpoint": name, "command": self.facts["command"]}

    def log_results(self, metrics: Mapping[str, Any], weights: str | None = None) -> None:
        """Add metrics to results.json.

        Args:
            metrics: Name to number or scalar tensor.
            weights: The checkpoint they were measured on; None for the weights in memory.

        Raises:
            Stopped: A signal has asked the run to end; the metrics are written.
            Pruned: The search has, of which the run is a trial.
        """
        self.results["metrics"] |= {name: float(value) for name, value in sorted(metrics.items())}
        if weights is not None:
            path = Path(weights).resolve()
            inside = path.is_relative_to(self.folder.resolve())
            self.results["weights"] = str(path.relative_to(self.folder.resolve()) if inside else path)
        if rank() == 0:
            write_atomic(self.folder / RESULTS, json.dumps(self.results, indent=2) + "\n")
        signal_handler().stop_if_requested()
        if self.pruning is not None:
            self.pruning.stop_if_pruned()

    def finish(self, wanted: Any) -> dict[str, float]:
        """Show the final table and return the metrics.

        Args:
            wanted: The metric a sweep optimises, a list of them, or None.

        Raises:
            UserError: The run logged no metric of one of these names.
        """
        from fulgurite.engine.objective import require_metric

        metrics: dict[str, float] = dict(self.results["metrics"])
        if rank() == 0:
            show_results(metrics, self.results["weights"], self.folder)
        for name in as_names(wanted):
            require_metric(name, metrics)
        return metrics

    def close_loggers(self, *, failed: bool) -> None:
        """Close every logger of the run."""
        if self.loggers:
            from fulgurite.loggers import adapters

            with suppress(OSError):  # a logger that connected late has an ID by now
                if (ids := self._ids()) != self.facts["loggers"]:
                    self.write(loggers=ids)
            adapters.close(self.loggers, failed=failed)

    def close(self, status: str, reason: str | None, exit_code: int) -> None:
        """Write how the run ended."""
        self.write(status=status, reason=reason, exit_code=exit_code, end=utc_now())
        record_event(self.facts["sweep"], status, run=self.folder, reason=reason, exit_code=exit_code)


def count_parameters(run: Run) -> dict[str, int]:
    """Return how many parameters the model has, in all and trainable."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in run.model.parameters()]
    return {"total": sum(n for n, _ in sizes), "trainable": sum(n for n, trainable in sizes if trainable)}


def _halved(cfg: DictConfig) -> dict[str, list[int]] | None:
    asked = OmegaConf.select(cfg, "callbacks.oom_backoff.halved_from.batch_size")
    return {"batch_size": [asked, cfg.data.batch_size]} if asked else None


def _shown_commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else "(unknown)"
