"""Models for Lightning's callbacks, and callbacks as users write them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
)
from torch import nn

from tests.support.shapes.loaders import Data
from tests.support.shapes.models import Net


class Backbone(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential()
        self.backbone = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.net = nn.Sequential(self.backbone, nn.Linear(8, 2))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=self.lr)


class Finetuning(BackboneFinetuning):
    def __init__(self) -> None:
        super().__init__(unfreeze_backbone_at_epoch=1, lambda_func=lambda _epoch: 1.5, verbose=False)


class UnfreezeAndHalve(BaseFinetuning):
    """Unfreezes after an epoch, and halves a learning rate in each epoch, as users write it."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)
        optimizer.param_groups[0]["lr"] /= 2


class Pruning(ModelPruning):
    def __init__(self) -> None:
        super().__init__("l1_unstructured", amount=0.1, use_lottery_ticket_hypothesis=False)


class Swa(StochasticWeightAveraging):
    def __init__(self) -> None:
        super().__init__(swa_lrs=0.01, swa_epoch_start=1)


class Spikes(SpikeDetection):  # type: ignore[misc, unused-ignore]
    """Never finds one: the folder of its list would be the working directory."""

    def __init__(self) -> None:
        super().__init__(rtol=1000.0, warmup=100)


class Sized(Data):
    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 6

    def train_dataloader(self) -> Any:
        self.kw = {"batch_size": self.batch_size}
        return super().train_dataloader()


class TwoValidationSets(Data):
    def val_dataloader(self) -> Any:
        return [super().val_dataloader(), super().test_dataloader()]


class RandomValidationSet(Data):
    """Shuffled, changed validation examples."""

    def val_dataloader(self) -> Any:
        from tests.support.shapes.loaders import Points

        return self.load(Points(24, 1, 1.0), shuffle=True)


class Nothing(Data):
    def train_dataloader(self) -> Any:
        from tests.support.shapes.loaders import Points

        return self.load(Points(0))


class TooFew(Data):
    def train_dataloader(self) -> Any:
        from tests.support.shapes.loaders import Points

        return self.load(Points(), batch_size=64, drop_last=True)
