"""Applies exact resume to a run: its loaders, its random generators, its metrics, Lightning's own bookkeeping."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader
from torchmetrics import Metric

from src.base.logs import RankedLogger
from src.run.exact.loader import make_exact
from src.run.exact.randomness import generator_states, restore_generators, seed_of

log = RankedLogger(__name__)

# Where in a run a checkpoint holds all that a resumed run needs; at other places Lightning is amid its own work.
PLACES = ("epoch start", "step", "end")


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
        self._resumed = False
        self._state: dict[str, Any] | None = None
        self._means: dict[str, dict[str, torch.Tensor]] = {}
        self._trainer: Trainer | None = None

    def wrap(self, datamodule: LightningDataModule) -> None:
        """Make the loaders that a data module hands out exact, wherever they can be made so.

        Args:
            datamodule: Gets its loader methods replaced on the object; its class stays as it is.
        """
        make_train, make_val = datamodule.train_dataloader, datamodule.val_dataloader

        @wraps(make_train)
        def train_dataloader() -> Any:
            loaders = make_train()
            trainer = datamodule.trainer
            if trainer is not None and (trainer.world_size > 1 or vars(trainer)["overfit_batches"] > 0):
                return loaders  # Lightning puts other samplers in
            loaders, reasons = make_exact(loaders, self.seed, self.restore)
            for reason in reasons:
                log.info("exact resume is off for the order of the batches: %s", reason)
            return loaders

        @wraps(make_val)
        def val_dataloader() -> Any:
            loaders = make_val()
            each = loaders.values() if isinstance(loaders, dict) else loaders
            for loader in each if isinstance(loaders, (dict, list, tuple)) else [loaders]:
                if isinstance(loader, DataLoader) and loader.generator is None:
                    # workers that live on draw once a process, so a resumed run would draw once more
                    loader.generator = torch.Generator().manual_seed(seed_of("validation", self.seed))
            return loaders

        # an attribute of the object, not of the class: other data modules stay as they are
        vars(datamodule).update(train_dataloader=train_dataloader, val_dataloader=val_dataloader)

    # what is saved

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and, at a place a run can go on from exactly, generators, metrics and means."""
        trainer = self._trainer
        if trainer is None or self._place not in PLACES:
            return {"seed": self.seed}
        means = trainer.fit_loop.epoch_loop._results if self._place == "step" else {}
        return {
            "seed": self.seed,
            "generators": generator_states(),
            "metrics": {
                name: {"state": metric.metric_state, "updates": metric._update_count}
                for name, metric in _metrics_of(trainer.lightning_module)
            },
            "means": {
                key: {"value": mean.value, "weight": getattr(mean, "cumulated_batch_size", torch.tensor(0))}
                for key, mean in means.items()
                if mean.is_tensor and mean.meta.on_epoch and not mean.has_reset
            },
            "logged": dict(trainer.callback_metrics),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what was saved until `restore`."""
        self.seed = state_dict["seed"]
        self._state = state_dict if "generators" in state_dict else None
        self._resumed = True

    def restore(self) -> None:
        """Put back what was saved; does nothing when that was done or nothing was saved."""
        state, self._state = self._state, None
        if state is None or self._trainer is None:
            return
        for name, metric in _metrics_of(self._trainer.lightning_module):
            if (saved := state["metrics"].get(name)) is not None:
                for attribute, value in saved["state"].items():
                    setattr(metric, attribute, _moved(value, metric.device))
                metric._update_count = saved["updates"]
                metric._computed = None
        self._means = dict(state["means"])
        self._trainer.callback_metrics.update(state["logged"])
        restore_generators(state["generators"])

    # when

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the sanity check of a resumed run: the run it goes on from has had its own."""
        self._trainer = trainer
        if self._resumed:
            trainer.num_sanity_val_steps = 0

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
        if self._means:
            self._add_means(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that metrics are in use."""
        self._place = "validation"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Lightning step ReduceLROnPlateau, which it leaves out at the end of the first epoch after a resume."""
        self.restore()
        self._place = "epoch end"
        # its setter would undo this where training is counted in steps
        trainer.fit_loop._restarting = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that everything of the last epoch is done."""
        self._place = "end"

    def _add_means(self, trainer: Trainer) -> None:
        """Add each saved mean to the one that was begun anew, as soon as the model logs it again."""
        begun = trainer.fit_loop.epoch_loop._results
        for key in [key for key in self._means if key in begun]:
            mean, saved = begun[key], self._means.pop(key)
            value = saved["value"].to(mean.value.device)
            if mean.meta.is_mean_reduction:
                mean.value = value + mean.value
                mean.cumulated_batch_size = saved["weight"].to(mean.value.device) + mean.cumulated_batch_size
            elif mean.meta.is_sum_reduction:
                mean.value = value + mean.value
            else:
                mean.value = mean.meta.reduce_fx(value, mean.value)
            mean._computed = None


class ForgetOrder(Callback):
    """Drops the place of the loaders from a checkpoint that an exact run saved: this run's loaders know of none."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop it before Lightning looks for loaders to give it to."""
        checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)


def apply_exact_resume(
    trainer: Trainer, datamodule: LightningDataModule, seed: int | None, *, wanted: bool, resumes: bool
) -> None:
    """Make a run resume exactly, where that is wanted and can be had.

    Args:
        trainer: Gets a callback more.
        datamodule: Its loaders become exact.
        seed: The run's seed.
        wanted: False leaves everything to Lightning.
        resumes: Whether the run goes on from a checkpoint, which may hold what an exact run saved.
    """
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    if wanted and trainer.world_size > 1:
        log.info("exact resume is off: it is for one process, this run has %d", trainer.world_size)
        wanted = False
    if not wanted:
        if resumes:
            callbacks.insert(0, ForgetOrder())
        return
    exact = ExactResume(seed)
    exact.wrap(datamodule)
    # Lightning has sorted its callbacks by now: those that save are last
    saving = len(trainer.checkpoint_callbacks)
    callbacks.insert(len(callbacks) - saving, exact)


def _metrics_of(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, Metric)]


def _moved(value: Any, device: torch.device) -> Any:
    return [part.to(device) for part in value] if isinstance(value, list) else value.to(device)
