"""Applies exact resume to a run: its loaders, its random generators, its metrics, Lightning's own bookkeeping."""

from __future__ import annotations

from functools import wraps
from typing import Any, cast

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torchmetrics import Metric

from fulgurite.compat.lightning import (
    drop_cached_value,
    end_restart,
    epoch_results,
    set_update_count,
    uses_distributed_sampler,
)
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.dataloading.patch import each_loader
from fulgurite.exact_resume.loader import ShardSpec, make_exact
from fulgurite.exact_resume.numerics import differences, numerics_settings
from fulgurite.exact_resume.rng import ScopedRng, derive_seed, generator_states, restore_generators

log = RankedLogger(__name__)

# Where in a run a checkpoint holds all that a resumed run needs; at other places Lightning is amid its own work.
RESUMABLE_POINTS = ("epoch start", "step", "end")


MARK = "is_exact"  # on a loader method that was wrapped


class ExactResume(Callback):
    """Saves and restores what Lightning does not: random generators, metrics and means amid an epoch.

    Its place is behind the callbacks of the config and before those that save. What was saved is put back as late as
    possible, after every `on_train_start`, where models like to reset their metrics, and before the first batch.

    Args:
        seed: Of order and random changes of the training batches; None draws one.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed if seed is not None else torch.seed() % 2**32
        self._place = ""
        self._state: dict[str, Any] | None = None
        self._epoch_means: dict[str, dict[str, torch.Tensor]] = {}
        self._trainer: Trainer | None = None
        self._lending = ScopedRng()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree on a seed and wrap the data module; here, in the process that trains, which may be a spawned one."""
        if stage != "fit":
            return
        self._trainer = trainer
        self.seed = int(trainer.strategy.broadcast(self.seed))
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            self.wrap(datamodule)

    def wrap(self, datamodule: LightningDataModule) -> None:
        """Make the loaders that a data module hands out exact, wherever they can be made so.

        Args:
            datamodule: Gets its loader methods replaced on the object; its class stays as it is.
        """
        if hasattr(datamodule.train_dataloader, MARK):
            return  # fitted before
        make_train, make_val = datamodule.train_dataloader, datamodule.val_dataloader

        @wraps(make_train)
        def train_dataloader() -> Any:
            loaders, trainer = make_train(), cast("Trainer", datamodule.trainer)
            reasons = ["trainer.overfit_batches takes the same few in the same order"]
            if vars(trainer)["overfit_batches"] == 0:
                loaders, reasons = make_exact(loaders, self._share(trainer))
            for reason in reasons:
                log.info("exact resume is off for the order of the batches: %s", reason)
            return loaders

        @wraps(make_val)
        def val_dataloader() -> Any:
            loaders = make_val()
            for loader in each_loader(loaders):
                if loader.generator is None:
                    # workers that live on draw once a process, so a resumed run would draw once more
                    loader.generator = torch.Generator().manual_seed(derive_seed("validation", self.seed))
            return loaders

        setattr(train_dataloader, MARK, True)
        # an attribute of the object, not of the class: other data modules stay as they are
        vars(datamodule).update(train_dataloader=train_dataloader, val_dataloader=val_dataloader)

    def _share(self, trainer: Trainer) -> ShardSpec:
        """Return which part of an epoch this process trains on."""
        shares = trainer.distributed_sampler_kwargs or {}
        if not uses_distributed_sampler(trainer):
            shares = {}  # the data module shares out by itself
        return ShardSpec(self.seed, self.restore, self._lending, shares.get("rank", 0), shares.get("num_replicas", 1))

    # what is saved

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints, fixed against renames of the class."""
        return "ExactResume"

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and, at a place a run can go on from exactly, the state of every rank.

        Called on all ranks, of which the first one writes the checkpoint.
        """
        trainer = self._trainer
        if trainer is None or self._place not in RESUMABLE_POINTS:
            return {"seed": self.seed}
        means = epoch_results(trainer) if self._place == "step" else {}
        own = {
            "generators": generator_states(),
            "lending": self._lending.state_dict(),
            "metrics": {
                name: {"state": metric.metric_state, "updates": metric.update_count}
                for name, metric in _metrics_of(trainer.lightning_module)
            },
            "means": {
                key: {"value": mean.value, "weight": getattr(mean, "cumulated_batch_size", torch.tensor(0))}
                for key, mean in means.items()
                if mean.is_tensor and mean.meta.on_epoch and not mean.has_reset
            },
            "logged": dict(trainer.callback_metrics),
            # a run that was stopped early has its end there, as long as it is not asked for more
            "ended": _limits(trainer) if self._place == "end" and trainer.should_stop else None,
        }
        return {"seed": self.seed, "switches": numerics_settings(trainer), "ranks": _from_all_ranks(own, trainer)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the score of the newest best checkpoint, which Lightning saves and does not read."""
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key) or {}
            if trainer.state.fn == "fit" and isinstance(callback, ModelCheckpoint) and "current_score" in state:
                callback.current_score = state["current_score"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until `restore`, and tell what is not as it was."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit":
            return
        self.seed = state_dict["seed"]
        trainer.num_sanity_val_steps = 0  # the run it goes on from has had its own
        ranks = state_dict.get("ranks")
        if ranks is None:
            log.warning("the checkpoint was saved where a run cannot go on exactly; checkpoints/last.ckpt always can")
            return
        for line in differences(state_dict["switches"], numerics_settings(trainer)):
            log.warning("exact resume: %s", line)
        self._state = ranks[trainer.global_rank if len(ranks) == trainer.world_size else 0]
        if len(ranks) != trainer.world_size:
            del self._state["generators"]  # one for all would make all ranks draw alike

    def restore(self) -> None:
        """Put back what was saved; does nothing when that was done or nothing was saved."""
        state, self._state = self._state, None
        if state is None or self._trainer is None:
            return
        for name, metric in _metrics_of(self._trainer.lightning_module):
            if (saved := state["metrics"].get(name)) is not None:
                for attribute, value in saved["state"].items():
                    setattr(metric, attribute, _moved(value, metric.device))
                set_update_count(metric, saved["updates"])
                drop_cached_value(metric)
        self._epoch_means = dict(state["means"])
        self._trainer.callback_metrics.update(state["logged"])
        self._lending.load_state_dict(state["lending"])
        if "generators" in state:
            restore_generators(state["generators"])

    # when

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further where the run had been stopped early and is not asked for more."""
        if self._state is not None and self._state.get("ended") == _limits(trainer):
            log.info("the run had stopped early, before trainer.max_epochs=%s; raise that to go on", trainer.max_epochs)
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore a run that goes on with a new epoch."""
        self.restore()
        self._place = "epoch start"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore a run that goes on amid an epoch, if its loader has not done so already."""
        self.restore()
        self._place = "batch"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add to the means of the epoch what was there before the run stopped."""
        self._place = "step"
        if self._epoch_means:
            self._add_means(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that metrics are in use."""
        self._place = "validation"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Lightning step ReduceLROnPlateau, which it leaves out at the end of the first epoch after a resume."""
        self.restore()
        self._place = "epoch end"
        end_restart(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that everything of the last epoch is done."""
        self._place = "end"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore a run that was saved at its end: no step is left, but its metrics are still to be recorded."""
        self.restore()

    def _add_means(self, trainer: Trainer) -> None:
        """Add each saved mean to the one that was begun anew, as soon as the model logs it again."""
        begun = epoch_results(trainer)
        for key in [key for key in self._epoch_means if key in begun]:
            mean, saved = begun[key], self._epoch_means.pop(key)
            value = saved["value"].to(mean.value.device)
            if mean.meta.is_mean_reduction:
                mean.value = value + mean.value
                mean.cumulated_batch_size = saved["weight"].to(mean.value.device) + mean.cumulated_batch_size
            elif mean.meta.is_sum_reduction:
                mean.value = value + mean.value
            else:
                mean.value = mean.meta.reduce_fx(value, mean.value)
            drop_cached_value(mean)


class DropLoaderState(Callback):
    """Drops the place of the loaders from a checkpoint that an exact run saved: this run's loaders know of none."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop it before Lightning looks for loaders to give it to."""
        checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)


def apply_exact_resume(trainer: Trainer, seed: int | None, *, wanted: bool, resumes: bool) -> None:
    """Make a run resume exactly, where that is wanted.

    Args:
        trainer: Gets a callback more.
        seed: The run's seed.
        wanted: False leaves everything to Lightning.
        resumes: Whether the run goes on from a checkpoint, which may hold what an exact run saved.
    """
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    if wanted:
        # Lightning has sorted its callbacks by now: those that save are last
        callbacks.insert(len(callbacks) - len(trainer.checkpoint_callbacks), ExactResume(seed))
    elif resumes:
        callbacks.insert(0, DropLoaderState())


def _from_all_ranks(own: dict[str, Any], trainer: Trainer) -> list[dict[str, Any]]:
    """Return the state of every rank, in the order of the ranks; a collective call."""
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, move_data_to_device(own, torch.device("cpu")))
    return gathered


def _limits(trainer: Trainer) -> list[int | None]:
    return [trainer.max_epochs, trainer.max_steps]


def _metrics_of(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, Metric)]


def _moved(value: Any, device: torch.device) -> Any:
    return [part.to(device) for part in value] if isinstance(value, list) else value.to(device)
