"""A trial of a search tells its study how it does after each validation, and ends early where that promises little."""

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
from fulgurite.core.errors import Pruned
from fulgurite.core.metric_names import metrics_of
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.study.storage import PRUNED, StoredStudy, open_storage, study_name

log = RankedLogger(__name__)


class PruningCallback(Callback):
    """Reports the metric after each validation; rank 0 asks whether to go on, and all ranks stop after that epoch.

    A database that cannot be reached costs the reports, not the run.

    Args:
        metric: The one that the search optimises.
        number: Of the trial.
        study: Name of the study.
        sweeper: `hydra.sweeper`, unresolved: a URL may hold a password.
        folder: The search's directory.
    """

    def __init__(self, metric: str, number: int, study: str, sweeper: DictConfig, folder: Path) -> None:
        self.metric, self.number, self.study = metric, number, study
        self.sweeper, self.folder = sweeper, folder
        self.validations = 0
        self.reason: str | None = None
        self._lost = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report and, where that is the verdict, stop."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.metric not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.metric])
        is_last = trainer.current_epoch + 1 == trainer.max_epochs  # nothing is left to be spared
        reason = self._report(value, trainer.current_epoch, is_last=is_last) if trainer.is_global_zero else None
        self.validations += 1
        self.reason = trainer.strategy.broadcast(reason)
        if self.reason is not None:
            trainer.should_stop = True

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints; the name that the class had first, so that older checkpoints load."""
        return "Reporter"

    def state_dict(self) -> dict[str, Any]:
        """Return how many validations were reported, so that a trial that goes on counts on."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.validations = state_dict["validations"]

    def stop_if_pruned(self) -> None:
        """End the run after its training, if that was the verdict.

        Raises:
            Pruned: So it was.
        """
        # the copy of this callback in a process of ddp_spawn has seen the validations, and told the study only
        reason = self.reason if self.validations else self._verdict()
        if reason is not None:
            raise Pruned(reason)

    def _report(self, value: float, epoch: int, *, is_last: bool) -> str | None:
        """Return why the trial is to end, or None."""
        if self._lost or not math.isfinite(value):
            return None
        try:
            trial = self._study().trial(self.number)
            if self.validations not in trial.study.get_trials(deepcopy=False)[self.number].intermediate_values:
                trial.report(value, self.validations)
            if is_last or not trial.should_prune():
                return None
            reason = f"{self.metric} {value:.4g} after epoch {epoch}"
            trial.set_user_attr(PRUNED, reason)
        except Exception as error:  # noqa: BLE001 - of any storage's client
            self._lose(error)
            return None
        return reason

    def _verdict(self) -> str | None:
        """Return the reason for an early end that the study was told."""
        try:
            trials = self._study().load().get_trials(deepcopy=False)
        except Exception as error:  # noqa: BLE001 - of any storage's client
            self._lose(error)
            return None
        return trials[self.number].user_attrs.get(PRUNED)

    def _lose(self, error: Exception) -> None:
        self._lost = True
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("the search's storage cannot be reached, so this trial is not pruned: %s", told)

    def _study(self) -> StoredStudy:
        pruner = make_part(self.sweeper.pruner, "hydra.sweeper.pruner")
        return StoredStudy(open_storage(self.sweeper, self.folder), self.study, pruner=pruner)


def pruning_callback(cfg: DictConfig) -> PruningCallback | None:
    """Return the callback of a job that is a trial of a search which prunes; None for any other run.

    Args:
        cfg: The job's config.
    """
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    # a process that was started for a trial is told its number, and runs nothing else
    in_sweep = hydra.mode == RunMode.MULTIRUN or "LOCAL_RANK" in os.environ
    ours = str(hydra.sweeper.get("_target_", "")).endswith(".SearchSweeper") and hydra.sweeper.get("pruner")
    if not (ours and in_sweep) or OmegaConf.is_missing(hydra.job, "num"):
        return None
    folder = Path(str(hydra.sweep.dir))
    # a copy, since the processes of ddp_spawn get it pickled, and without its parent it could not resolve
    whole = OmegaConf.create({"hydra": {"sweeper": hydra.sweeper}, "task_name": cfg.get("task_name")})
    return PruningCallback(metrics_of(cfg)[0], int(hydra.job.num), study_name(whole, folder), hydra.sweeper, folder)


def find_pruning_callback(trainer: Trainer) -> PruningCallback | None:
    """Return a trainer's reporter; None where it has none."""
    return next((callback for callback in vars(trainer)["callbacks"] if isinstance(callback, PruningCallback)), None)
