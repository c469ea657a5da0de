"""Write run.json and results.json, and log the hyperparameters.

Rank 0 rewrites run.json as a whole at the start and at each change; `RunRecord` describes its fields. results.json
holds `metrics` (name to number) and `weights`: their checkpoint, relative to the run directory; null: in memory.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fulgurite.config.metric_names import as_names
from fulgurite.config.tags import tag_names
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import format_number, print_table, short_path
from fulgurite.core.project import project_root
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.core.redact import hide_secrets, mask_config, mask_override, without_secrets
from fulgurite.distributed.launch_env import torchrun_restart
from fulgurite.runs.layout import CODE_PATCH, RECORD, RESULTS
from fulgurite.runs.provenance import (
    code_changes,
    code_patch,
    config_hash,
    git_state,
    halved_from,
    imported_code,
    versions,
)
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint, resumed_run, utc_now
from fulgurite.runs.sweep_ledger import record_event
from fulgurite.shutdown.signals import signal_handler

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from lightning.pytorch.loggers import Logger

    from fulgurite.engine.build import Run
    from fulgurite.study.pruning import PruningCallback

log = RankedLogger(__name__)

# A resumed run replaces these fields at its start, and those of PROVENANCE once it trains.
OF_START = ("status", "reason", "exit_code", "end", "host", "pid", "ranks", "torchrun", "command", "oom_backoff")
FREE_TEXT = ("task_name", "reason", "command", "tags", "inexact", "resumed")  # fields that may quote a secret
PROVENANCE = ("seed", "tags", "git", "code", "versions", "config_hash")


class RunRecord:
    """The record of one run in its directory.

    Args:
        cfg: A composed config.
        sweep: Directory and job number of the sweep that the run belongs to; None for a single run.

    Example:
        >>> with fulgurite.session(cfg) as record:
        ...     record.log_results(trainer.callback_metrics)
    """

    def __init__(self, cfg: DictConfig, sweep: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(cfg.paths.output_dir)
        self.loggers: list[Logger] = []
        self.pruning: PruningCallback | None = None
        self.results: dict[str, Any] = {"metrics": {}, "weights": None}
        context = current_context()
        argv = context.argv
        full_size = halved_from(cfg).get("batch_size")
        self.fields: dict[str, Any] = {
            "task_name": cfg.get("task_name"),
            "status": "running",  # or done, failed, killed, pruned
            "reason": None,  # one line if the status is failed, killed or pruned
            "exit_code": None,  # see core/errors.py; null while running
            "start": utc_now(),
            "end": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "ranks": 1,
            "torchrun": torchrun_restart()[1],  # host, process ID and start of the torchrun that started this process
            "command": [Path(argv[0]).name, *map(mask_override, argv[1:])],
            "seed": cfg.get("seed"),
            "tags": tag_names(cfg),
            "git": git_state(project_root()),  # {commit, dirty}; null outside a checkout
            "code": {},  # path to hash of each imported module of the project, once the model is built
            "versions": versions(),
            "config_hash": config_hash(cfg),
            "sweep": dict(sweep) if sweep else None,
            "loggers": {},  # config name to run ID
            "parameters": None,  # {total, trainable} once the model is built, and not_initialized of lazy modules
            "oom_backoff": {"batch_size": [full_size, cfg.data.batch_size]} if full_size else None,
            "batch_size": None,  # {global, per_process, processes, accumulate} of the training, once it starts
            "exact": True,  # false: a resumed run differs from an uninterrupted one in what `inexact` lists
            "inexact": [],  # of all starts
            "resumed": [],  # one {start, step, checkpoint, command} for each resume
        }
        context.inexact, context.record = [], self  # a sweep runs many jobs in one process
        self._provenance: dict[str, Any] = {}
        if (resumed := resumed_run(cfg)) is not None:
            self._provenance = {name: self.fields[name] for name in PROVENANCE}
            self.fields |= {name: value for name, value in resumed.record.items() if name not in OF_START}
        elif rank() == 0 and (self.fields["git"] or {}).get("dirty") and (patch := code_patch(project_root())):
            write_atomic(self.folder / CODE_PATCH, patch)
        self.write()
        record_event(self.fields["sweep"], "started", run=self.folder)

    def write(self, **fields: Any) -> None:
        """Set fields and rewrite run.json; ranks above 0 write nothing."""
        inexact = list(dict.fromkeys([*self.fields.get("inexact", []), *current_context().inexact]))
        self.fields |= {"exact": not inexact, "inexact": inexact, **fields}
        if rank() == 0:
            texts = without_secrets({name: self.fields.get(name) for name in FREE_TEXT})
            write_atomic(self.folder / RECORD, json.dumps({**self.fields, **texts}, indent=2) + "\n")

    def log_hyperparameters(self, run: Run) -> None:
        """Record what was built, and log the hyperparameters to every logger."""
        from fulgurite.loggers import adapters
        from fulgurite.study.pruning import find_pruning_callback

        trainer = run.trainer
        parameters = _count_parameters(run.model)
        self.loggers, self.pruning = list(trainer.loggers), find_pruning_callback(trainer)
        code = {"code": imported_code(project_root()) if rank() == 0 else {}}
        if self._provenance and (changes := code_changes(self.fields, {**self._provenance, **code})):
            log.warning("resume: the code has changed since the run started: %s", ", ".join(changes))
        self.fields |= {**self._provenance, **code}
        if run.resumed_from is not None:
            checkpoint = Path(run.cfg.ckpt_path).name if run.cfg.ckpt_path else None
            resumed = {"start": utc_now(), "step": run.resumed_from.step, "checkpoint": checkpoint}
            self.fields["resumed"] = [*self.fields["resumed"], {**resumed, "command": self.fields["command"]}]
        self.write(ranks=trainer.world_size, parameters=parameters, loggers=self._run_ids())
        hyperparameters = {**mask_config(run.cfg), "tags": self.fields["tags"], "parameters": parameters}
        adapters.log_hyperparameters(trainer.loggers, hyperparameters, self.fields["tags"])

    def _run_ids(self) -> dict[str, str]:
        """Return the run ID of each logger; the recorded one if the logger does not respond."""
        from fulgurite.loggers.guarded import run_ids

        return {**self.fields["loggers"], **run_ids(self.loggers)}

    def log_results(self, metrics: Mapping[str, Any], weights: str | None = None) -> None:
        """Add metrics to results.json.

        Args:
            metrics: Name to number or scalar tensor.
            weights: Their checkpoint; None for the weights in memory.

        Raises:
            Interrupted: A signal arrived; the metrics are written.
            Pruned: The search prunes this trial; the metrics are written.
        """
        self.results["metrics"] |= {hide_secrets(name): float(value) for name, value in sorted(metrics.items())}
        if weights is not None:
            path = Path(weights).resolve()
            inside = path.is_relative_to(self.folder.resolve())
            self.results["weights"] = str(path.relative_to(self.folder.resolve()) if inside else path)
        if rank() == 0:
            write_atomic(self.folder / RESULTS, json.dumps(self.results, indent=2) + "\n")
        signal_handler().stop_if_requested()
        if self.pruning is not None:
            self.pruning.stop_if_pruned()

    def finish(self, optimized_metric: Any) -> dict[str, float]:
        """Print the final table and return the metrics.

        Args:
            optimized_metric: Name of the metric that a sweep optimizes, a list of names, or None.

        Raises:
            UserError: The run did not log one of them.
        """
        from fulgurite.engine.components.monitored import require_metric

        metrics: dict[str, float] = dict(self.results["metrics"])
        if rank() == 0:
            _show_results(metrics, self.results["weights"], self.folder, saved=self._saved())
        for name in as_names(optimized_metric):
            require_metric(name, metrics)
        return metrics

    def _saved(self) -> str | None:
        """Return the best checkpoint in the run directory, relative to it; None if the results name theirs."""
        if self.results["weights"] is not None:
            return None
        with suppress(UserError):
            return best_checkpoint(RunDirectory(self.folder)).relative_to(self.folder).as_posix()
        return None

    def close_loggers(self, *, failed: bool) -> None:
        """Close the run of every logger."""
        if self.loggers:
            from fulgurite.loggers import adapters

            with suppress(OSError):  # a logger that connected late has a run ID now
                if (ids := self._run_ids()) != self.fields["loggers"]:
                    self.write(loggers=ids)
            adapters.close(self.loggers, failed=failed)

    def close(self, status: str, reason: str | None, exit_code: int) -> None:
        """Record how the run ended."""
        self.write(status=status, reason=reason, exit_code=exit_code, end=utc_now())
        record_event(self.fields["sweep"], status, run=self.folder, reason=reason, exit_code=exit_code)


def _count_parameters(model: LightningModule) -> dict[str, int]:
    """Return the number of values of the parameters, and of parameters that have none before the first batch."""
    from torch.nn.parameter import UninitializedParameter

    parameters = list(model.parameters())
    known = [parameter for parameter in parameters if not isinstance(parameter, UninitializedParameter)]
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in known]
    counts = {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, grad in sizes if grad)}
    return counts | ({"not_initialized": len(parameters) - len(sizes)} if len(sizes) < len(parameters) else {})


def _show_results(metrics: Mapping[str, float], weights: str | None, folder: Path, saved: str | None = None) -> None:
    """Print the final metrics, their checkpoint, and the run directory.

    `weights` is the checkpoint that they were measured on, relative to the run directory; None: the weights in memory,
    and `saved`, the best checkpoint of the run, is shown.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", "value", title="Results")
    for name, value in metrics.items():
        table.add_row(Text(name), format_number(value))
    checkpoint = f"saved    {saved}" if saved and not weights else f"weights  {weights or 'in memory'}"
    print_table(table, checkpoint, f"run      {short_path(folder)}")
