"""A model and a data module as users write them: nothing in them knows of exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MaxMetric, MeanMetric

IMAGES = 104  # 13 batches of 8: the last accumulation of 4 is cut short
BATCH = 8


class Noisy(Dataset[Any]):
    """Examples that each of the three generators changes.

    Args:
        noise: Standard deviation of the change; 0 changes nothing.
    """

    def __init__(self, noise: float) -> None:
        made = torch.Generator().manual_seed(0)
        self.examples = torch.randn(IMAGES, 16, generator=made)
        self.labels = (self.examples[:, :4].sum(dim=1) + torch.randn(IMAGES, generator=made) > 0).long()
        self.noise = noise

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = random.gauss(0, 1) + float(np.random.standard_normal()) + torch.randn(16)  # noqa: NPY002
        return self.examples[index] + self.noise * drawn, self.labels[index]


class OrdinaryData(LightningDataModule):
    """Shuffles, augments one by one, with workers.

    Args:
        num_workers: Processes that load batches.
        persistent: Whether they live on from epoch to epoch.
    """

    def __init__(self, num_workers: int = 0, persistent: bool = False) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": persistent}

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, changed examples."""
        return DataLoader(Noisy(0.1), batch_size=BATCH, shuffle=True, **self.settings)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return them as they are."""
        return DataLoader(Noisy(0.0), batch_size=BATCH, **self.settings)


class OrdinaryModel(LightningModule):
    """Dropout, batch norm, plain and torchmetrics' means, metrics reset when training starts, a plateau scheduler.

    Args:
        interval: `epoch` or `step`: when the scheduler moves.
    """

    def __init__(self, interval: str = "epoch") -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))
        self.train_mean, self.best = MeanMetric(), MaxMetric()
        self.interval = interval

    def on_train_start(self) -> None:
        """Forget what the sanity check measured."""
        self.train_mean.reset()
        self.best.reset()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss, scalar, and log it in three ways."""
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/highest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("train/each", loss, on_step=True, on_epoch=True)
        self.train_mean(loss)
        self.log("train/mean", self.train_mean, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the mean loss."""
        self.log("val/loss", cross_entropy(self.net(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        """Log the highest validation loss so far."""
        self.best(self.trainer.callback_metrics["val/loss"])
        self.log("val/worst", self.best.compute())

    def configure_optimizers(self) -> Any:
        """Make Adam and a scheduler that moves whenever the loss does not fall by 5 %."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.7, threshold=0.05)
        one = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=64)
        scheduler = {"scheduler": plateau, "monitor": "val/loss"} if self.interval == "epoch" else {"scheduler": one}
        return {"optimizer": optimizer, "lr_scheduler": {**scheduler, "interval": self.interval}}
