"""Save and restore gradients that a later optimizer step uses."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from fulgurite.core.exactness import name_inexact


def kept_gradients(trainer: Trainer) -> dict[str, Tensor]:
    """Return the gradients of a model that clears them itself, by parameter; empty for every other model.

    With manual optimization a gradient between two batches may belong to an unfinished accumulation, which may cross
    the end of an epoch. Whether the model clears it before its next use is unknown.
    """
    model = trainer.lightning_module
    if model.automatic_optimization and not is_overridden("optimizer_zero_grad", model):
        return {}
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    if gradients and not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        name_inexact(
            type(trainer.strategy).__name__,
            "gradients that are accumulated by hand are not saved with sharded weights. Clear them after each step.",
        )
        return {}
    return gradients


def restore_gradients(model: LightningModule, gradients: Mapping[str, Tensor]) -> None:
    """Give parameters the gradients of `kept_gradients`."""
    for name, weight in model.named_parameters():
        if name in gradients:
            weight.grad = gradients[name].to(weight.device)
