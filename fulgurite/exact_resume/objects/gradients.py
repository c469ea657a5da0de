"""Save and restore gradients that a later optimizer step uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from fulgurite.core.exactness import name_inexact


def kept_gradients(trainer: Trainer, weights: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the gradients that Lightning does not clear before the next batch, by parameter.

    With manual optimization a gradient between two batches may belong to an unfinished accumulation, which may cross
    the end of an epoch. Whether the model clears it before its next use is unknown. Nothing clears the gradients of
    weights that no optimizer has.
    """
    model = trainer.lightning_module
    gradients = {name: weight.grad for name, weight in weights if weight.grad is not None}
    if gradients and model.automatic_optimization and not is_overridden("optimizer_zero_grad", model):
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        cleared = {id(weight.grad) for group in groups for weight in group["params"]}
        gradients = {name: gradient for name, gradient in gradients.items() if id(gradient) not in cleared}
    if gradients and not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        name_inexact(
            type(trainer.strategy).__name__,
            "gradients that no optimizer clears are not saved with sharded weights. Clear them after each step.",
        )
        return {}
    return gradients


def restore_gradients(model: LightningModule, gradients: Mapping[str, Tensor]) -> None:
    """Give parameters the gradients of `kept_gradients`."""
    for name, weight in model.named_parameters():
        if name in gradients:
            weight.grad = gradients[name].to(weight.device)
