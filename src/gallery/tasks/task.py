"""The base class of the tasks with one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer


class Task(LightningModule):
    """A LightningModule with one net, one optimizer and one scheduler.

    Args:
        net: The net that is trained.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.net = net
        self.make_optimizer, self.make_scheduler, self.scheduler_interval = optimizer, scheduler, scheduler_interval

    def trained_parameters(self) -> Iterable[Any]:
        """Return what the optimizer is called with: parameters, or groups of them."""
        return self.parameters()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer of `trained_parameters`, and the scheduler."""
        optimizer = self.make_optimizer(params=self.trained_parameters())
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer=optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.scheduler_interval},
        }
