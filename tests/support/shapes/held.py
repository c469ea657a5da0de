"""State in objects that a model keeps: optimizers, loaders and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from tests.support.shapes.models import Net
from tests.support.shapes.objects import counting_loss
from tests.support.shapes.shape import Shape, use

ATTRIBUTES = "state in attributes"


class Temperature(Net):
    """A weight with an optimizer and a schedule of its own, in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.own = torch.optim.Adam([self.temperature], lr=0.05)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.own, 0.1, total_steps=100)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return cross_entropy(self.net(batch[0]) * self.temperature, batch[1])

    def on_train_batch_end(self, *args: Any) -> None:
        if self.temperature.grad is not None:
            self.own.step()
            self.own.zero_grad()
            self.schedule.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=0.05)


class Reads(Net):
    """Another loader, iterated anew at each step, and a metric in a dict."""

    def __init__(self) -> None:
        super().__init__()
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(4))
        generator = torch.Generator().manual_seed(5)
        self.more = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8, shuffle=True, generator=generator)
        self.kept = {"accuracy": MulticlassAccuracy(2, average="micro")}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, labels = next(iter(self.more))
        output = self.net(x)
        self.kept["accuracy"].update(output, labels)
        return self.loss(batch) + cross_entropy(output, labels)

    def on_train_epoch_end(self) -> None:
        self.log("train/accuracy", self.kept["accuracy"].compute())
        self.kept["accuracy"].reset()


class Replaces(Net):
    """Sets another function while it trains, which no checkpoint can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.weighted: Callable[..., torch.Tensor] = cross_entropy

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 2:
            self.weighted = counting_loss()
        return self.weighted(self.net(batch[0]), batch[1])


HELD = [
    Shape("model: an optimizer and a scheduler of its own", ATTRIBUTES, model=use("held.Temperature")),
    Shape("model: another loader, and a metric in a dict", ATTRIBUTES, model=use("held.Reads")),
    Shape("model: another function", ATTRIBUTES, model=use("held.Replaces"), expect="named", line="weighted"),
]
