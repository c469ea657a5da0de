"""Let WeightAveraging and its subclasses, such as EMAWeightAveraging, change weights in `Trainer.fit` only.

Lightning 2.6.6 keeps the average after `Trainer.fit`. `Trainer.test(ckpt_path="best")` then loads the weights without
averaging over the averaged ones, which the checkpoint has as its `state_dict`, and tests those.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

# these load, save or swap the average
HOOKS = ("on_load_checkpoint", "on_save_checkpoint", "on_validation_epoch_start", "on_validation_epoch_end")


def average_in_fit_only() -> None:
    """Skip what WeightAveraging does at a checkpoint or a validation outside of `Trainer.fit`."""
    for name in HOOKS:
        hook = vars(WeightAveraging)[name]
        if not hasattr(hook, "__wrapped__"):
            setattr(WeightAveraging, name, _in_fit_only(hook))


def _in_fit_only(hook: Any) -> Any:
    @wraps(hook)
    def call_in_fit(callback: WeightAveraging, trainer: Trainer, *args: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            hook(callback, trainer, *args)

    return call_in_fit
