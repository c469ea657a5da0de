"""A frozen backbone with an adapter that is trained: checkpoints hold the adapter only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer


class Adapter(LightningModule):
    """Classifies images.

    Args:
        optimizer: Called with the parameters of the adapter.
        num_classes: Size of the head.
    """

    def __init__(self, optimizer: Callable[..., Optimizer], num_classes: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.strict_loading = False
        self.backbone = nn.Linear(784, 16)
        with torch.no_grad():
            self.backbone.weight.copy_(torch.randn(16, 784, generator=torch.Generator().manual_seed(0)))
            self.backbone.bias.zero_()
        self.backbone.requires_grad_(False)
        self.adapter = nn.Linear(16, 12)
        self.head = nn.Linear(12, num_classes)
        self.make_optimizer = optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the backbone out."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if not name.startswith("backbone")}

    def loss(self, batch: Any) -> torch.Tensor:
        """Return the cross entropy."""
        features = self.backbone(batch[0].flatten(1)).relu()
        return cross_entropy(self.head(self.adapter(features)), batch[1] % self.head.out_features)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self) -> Optimizer:
        """Train what is not frozen."""
        return self.make_optimizer(params=[*self.adapter.parameters(), *self.head.parameters()])
