"""The pruning callback of a trial: report to Optuna after each validation."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from fulgurite.config.hydra_targets import make_part
from fulgurite.config.metric_names import optimized_metrics
from fulgurite.core.errors import Pruned
from fulgurite.core.formatting import format_number
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.study.storage import PRUNED, StoredStudy, open_storage, study_name

log = RankedLogger(__name__)


class PruningCallback(Callback):
    """Reports the metric after each validation, and stops all ranks of a pruned trial.

    If the storage cannot be reached, the trial is trained without pruning. `sweeper` is `hydra.sweeper`, unresolved,
    because a URL may contain a password.
    """

    def __init__(self, metric: str, number: int, study: str, sweeper: DictConfig, folder: Path) -> None:
        self.metric, self.number, self.study = metric, number, study
        self.sweeper, self.folder = sweeper, folder
        self.num_validations = 0
        self.reason: str | None = None
        self._is_storage_lost = False

    @property
    def state_key(self) -> str:
        """First name of the class, so that older checkpoints load."""
        return "Reporter"

    def state_dict(self) -> dict[str, Any]:
        """Save the number of reports, which is the step of the next one."""
        return {"validations": self.num_validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of reports."""
        self.num_validations = state_dict["validations"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric, and stop the training of a pruned trial."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.metric not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.metric])
        is_last = trainer.current_epoch + 1 == trainer.max_epochs  # pruning would save nothing
        reason = self._report(value, trainer.current_epoch, is_last=is_last) if trainer.is_global_zero else None
        self.num_validations += 1
        self.reason = trainer.strategy.broadcast(reason)
        if self.reason is not None:
            trainer.should_stop = True

    def stop_if_pruned(self) -> None:
        """Raise `Pruned` after the training of a pruned trial."""
        # with ddp_spawn the callback's copy in the spawned process did the reports, and only the study has the reason
        reason = self.reason if self.num_validations else self._read_reason()
        if reason is not None:
            raise Pruned(reason)

    def _report(self, value: float, epoch: int, *, is_last: bool) -> str | None:
        """Report a value, and return the reason for pruning the trial, or None."""
        if self._is_storage_lost or not math.isfinite(value):
            return None
        try:
            trial = self._study().trial(self.number)
            if self.num_validations not in trial.study.get_trials(deepcopy=False)[self.number].intermediate_values:
                trial.report(value, self.num_validations)
            if is_last or not trial.should_prune():
                return None
            reason = f"{self.metric} {format_number(value)} after epoch {epoch}"
            trial.set_user_attr(PRUNED, reason)
        except Exception as error:  # noqa: BLE001 - from the client of any storage
            self._warn_storage_lost(error)
            return None
        return reason

    def _read_reason(self) -> str | None:
        try:
            trials = self._study().load().get_trials(deepcopy=False)
        except Exception as error:  # noqa: BLE001 - from the client of any storage
            self._warn_storage_lost(error)
            return None
        return trials[self.number].user_attrs.get(PRUNED)

    def _warn_storage_lost(self, error: Exception) -> None:
        self._is_storage_lost = True
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("hydra.sweeper.storage cannot be reached, so this trial is not pruned: %s", reason)

    def _study(self) -> StoredStudy:
        pruner = make_part(self.sweeper.pruner, "hydra.sweeper.pruner")
        return StoredStudy(open_storage(self.sweeper, self.folder), self.study, pruner=pruner)


def pruning_callback(cfg: DictConfig) -> PruningCallback | None:
    """Return the callback for a trial of a search with a pruner, else None."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    # a rank that Lightning starts for a trial has the trial's number, but does not run in MULTIRUN mode
    in_sweep = hydra.mode == RunMode.MULTIRUN or "LOCAL_RANK" in os.environ
    prunes = str(hydra.sweeper.get("_target_", "")).endswith(".SearchSweeper") and hydra.sweeper.get("pruner")
    if not (prunes and in_sweep) or OmegaConf.is_missing(hydra.job, "num"):
        return None
    folder = Path(str(hydra.sweep.dir))
    # HydraConfig has no task_name
    config = OmegaConf.create({"hydra": {"sweeper": hydra.sweeper}, "task_name": cfg.get("task_name")})
    return PruningCallback(
        optimized_metrics(cfg)[0], int(hydra.job.num), study_name(config, folder), hydra.sweeper, folder
    )


def find_pruning_callback(trainer: Trainer) -> PruningCallback | None:
    """Return the pruning callback of a trainer, or None."""
    return next((callback for callback in vars(trainer)["callbacks"] if isinstance(callback, PruningCallback)), None)
