"""Mend WeightAveraging and its subclasses, such as EMAWeightAveraging, of Lightning 2.6.6.

It keeps the average after `Trainer.fit`. `Trainer.test(ckpt_path="best")` then loads the weights without averaging over
the averaged ones, which the checkpoint has as its `state_dict`, and tests those. The average also replaces the weights
before the last checkpoint of a training is saved, from which a longer training then resumed with the average.
"""

from __future__ import annotations

import warnings
from functools import wraps
from typing import Any
from weakref import WeakSet

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

# these load, save or swap the average
HOOKS = ("on_load_checkpoint", "on_save_checkpoint", "on_validation_epoch_start", "on_validation_epoch_end")

_ended: WeakSet[WeightAveraging] = WeakSet()  # the model has the average, and the average model has the weights


def mend_weight_averaging() -> None:
    """Skip what it does at a checkpoint or a validation outside of `Trainer.fit`, and save the weights when it ends."""
    if hasattr(WeightAveraging.on_load_checkpoint, "__wrapped__"):
        return
    for name in HOOKS:
        setattr(WeightAveraging, name, _in_fit_only(vars(WeightAveraging)[name]))
    setup, save = WeightAveraging.setup, WeightAveraging.on_save_checkpoint

    def begin(self: WeightAveraging, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _ended.discard(self)
        with warnings.catch_warnings():
            if not isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):  # nothing is sharded
                warnings.filterwarnings("ignore", message=".*overrides the configure_model callback")
            setup(self, trainer, pl_module, stage)

    def swap_at_end(self: WeightAveraging, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)
        _ended.add(self)

    def save_unswapped(
        self: WeightAveraging, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        save(self, trainer, pl_module, checkpoint)
        if self in _ended and "current_model_state" in checkpoint:
            average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint.update(state_dict=average, current_model_state=weights)

    for name, hook in (("setup", begin), ("on_train_end", swap_at_end), ("on_save_checkpoint", save_unswapped)):
        setattr(WeightAveraging, name, hook)


def _in_fit_only(hook: Any) -> Any:
    @wraps(hook)
    def call_in_fit(callback: WeightAveraging, trainer: Trainer, *args: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            hook(callback, trainer, *args)

    return call_in_fit
