"""Models as users write them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy


def pairs(batch: Any) -> list[Any]:
    """Find the (x, y) pairs of a batch, whatever nests them."""
    if isinstance(batch, dict):
        return [pair for part in batch.values() for pair in pairs(part)]
    if batch is None:
        return []
    if isinstance(batch[0], torch.Tensor):
        return [batch]
    return [pair for part in batch for pair in pairs(part)]


class Net(LightningModule):
    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.lr = lr

    def loss(self, batch: Any) -> torch.Tensor:
        losses = [cross_entropy(self.net(pair[0]), pair[1]) for pair in pairs(batch)]
        return torch.stack(losses).sum()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        loss = self.loss(batch)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class ManualAccumulation(Net):
    def __init__(self, every: int = 2) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.every = every

    def training_step(self, batch: Any, batch_idx: int) -> None:
        opt: Any = self.optimizers()
        loss = self.loss(batch)
        self.manual_backward(loss / self.every)
        if (batch_idx + 1) % self.every == 0:
            opt.step()
            opt.zero_grad()
        self.log("train/loss", loss)


class GAN(LightningModule):
    def __init__(self, d_every: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.g = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16))
        self.d = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        self.d_every = d_every

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x = batch[0]
        optimizers: Any = self.optimizers()
        og, od = optimizers
        fake = self.g(torch.randn(len(x), 4))
        if batch_idx % self.d_every == 0:
            ld = bce(self.d(x), torch.ones(len(x), 1)) + bce(self.d(fake.detach()), torch.zeros(len(x), 1))
            od.zero_grad()
            self.manual_backward(ld)
            od.step()
            self.log("train/d_loss", ld, on_step=True, on_epoch=True)
        lg = bce(self.d(fake), torch.ones(len(x), 1))
        og.zero_grad()
        self.manual_backward(lg)
        og.step()
        self.log("train/g_loss", lg, on_step=True, on_epoch=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.d(batch[0]).sigmoid().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", self.d(batch[0]).sigmoid().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.g.parameters(), lr=0.01), torch.optim.Adam(self.d.parameters(), lr=0.01)
