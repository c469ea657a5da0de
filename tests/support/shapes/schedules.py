"""Every scheduler of torch, by step and by epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler as lr

from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

MAKE: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lr.MultiplicativeLR(o, lambda _step: 0.95),
    "StepLR": lambda o: lr.StepLR(o, step_size=2, gamma=0.5),
    "MultiStepLR": lambda o: lr.MultiStepLR(o, [1, 9, 13], gamma=0.5),
    "ConstantLR": lambda o: lr.ConstantLR(o, factor=0.5, total_iters=2),
    "LinearLR": lambda o: lr.LinearLR(o, total_iters=15),
    "ExponentialLR": lambda o: lr.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr.PolynomialLR(o, total_iters=20),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, T_max=20),
    "CosineAnnealingWarmRestarts": lambda o: lr.CosineAnnealingWarmRestarts(o, T_0=4),
    "CyclicLR": lambda o: lr.CyclicLR(o, 0.001, 0.1, step_size_up=3),
    "OneCycleLR": lambda o: lr.OneCycleLR(o, max_lr=0.1, total_steps=21),
    "SequentialLR": lambda o: lr.SequentialLR(o, [lr.ConstantLR(o, 0.1), lr.ExponentialLR(o, 0.9)], milestones=[2]),
    "ChainedScheduler": lambda o: lr.ChainedScheduler([lr.ConstantLR(o, 0.1), lr.ExponentialLR(o, 0.9)], o),
    "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=0, factor=0.7, threshold=0.2),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=9),
}


class Scheduled(Net):
    def __init__(self, name: str, interval: str, frequency: int = 1) -> None:
        super().__init__()
        self.name, self.interval, self.frequency = name, interval, frequency

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        monitor = "train/loss_step" if self.interval == "step" else "val/loss"
        scheduler = {"scheduler": MAKE[self.name](optimizer), "interval": self.interval, "frequency": self.frequency}
        return {"optimizer": optimizer, "lr_scheduler": {**scheduler, "monitor": monitor}}


class ByHand(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        scheduler.step()
        self.log("train/loss", loss)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        return [optimizer], [MAKE["OneCycleLR"](optimizer)]


class Counted(Net):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        scheduler = lr.OneCycleLR(optimizer, 0.1, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


SCHEDULERS = [
    Shape(
        f"{name} by {interval}",
        f"schedulers by {interval}",
        model=use("schedules.Scheduled", name=name, interval=interval),
        row=name,
    )
    for name in MAKE
    for interval in ("step", "epoch")
] + [
    Shape(
        "a scheduler with a frequency",
        "schedulers by step",
        model=use("schedules.Scheduled", name="ExponentialLR", interval="step", frequency=2),
    ),
    Shape("OneCycleLR of all steps", "schedulers by step", model=use("schedules.Counted"), row="OneCycleLR"),
    Shape("a scheduler that training_step moves", "schedulers by step", model=use("schedules.ByHand")),
]
