"""Learning without labels: a student predicts what a teacher, its moving average, sees in another view (BYOL)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, normalize
from torch.optim import Optimizer

from src.gallery.nets.self_supervised import Projector, head
from src.gallery.tasks.task import Task
from src.models.metrics import ExampleMean

Batch = tuple[torch.Tensor, torch.Tensor]


class SelfSupervised(Task):
    """Trains an encoder on two views of each image; labels serve to judge the features only (Grill et al. 2020).

    Metrics: `train/loss`, 2 minus twice the cosine similarity, mean over images and both directions; `val/acc` and
    `test/acc`, accuracy of the nearest neighbour of each image among the training images of the last epoch, by
    features.

    Args:
        net: The student, a `Projector`. The teacher starts as its copy.
        view: Makes a random view of a batch of images, `[B, C, H, W]` to the same.
        optimizer: Called with the parameters of the student and the predictor.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
        decay: Share of the teacher that stays at each step.
        bank_size: Training images whose features are kept, the newest ones.
    """

    net: Projector
    features: torch.Tensor
    labels: torch.Tensor

    def __init__(
        self,
        net: Projector,
        view: Callable[[torch.Tensor], torch.Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        decay: float = 0.99,
        bank_size: int = 2048,
    ) -> None:
        super().__init__(net, optimizer, scheduler, scheduler_interval)
        self.view, self.decay = view, decay
        self.predictor = head(net.size, 2 * net.size, net.size)
        self.teacher = copy.deepcopy(net).requires_grad_(False)
        size = next(module for module in net.head if isinstance(module, nn.Linear)).in_features
        self.register_buffer("features", torch.zeros(bank_size, size))
        self.register_buffer("labels", torch.full((bank_size,), -1))
        self.train_loss, self.val_acc, self.test_acc = ExampleMean(), ExampleMean(), ExampleMean()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features `[B, F]` of unit length."""
        return normalize(self.net.encoder(images), dim=1)

    def _losses(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.teacher(other)
        return 2 - 2 * cosine_similarity(self.predictor(self.net(one)), target, dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean loss of both directions, scalar."""
        images, labels = batch
        one, other = self.view(images), self.view(images)
        losses = (self._losses(one, other) + self._losses(other, one)) / 2
        self.train_loss.update(losses.detach())
        self._remember(images, labels)
        return losses.mean()

    @torch.no_grad()
    def _remember(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.net.eval()
        self.features.copy_(torch.cat([self(images), self.features])[: len(self.features)])
        self.labels.copy_(torch.cat([labels, self.labels])[: len(self.labels)])
        self.net.train()

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the teacher towards the student."""
        for mine, theirs in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.decay)

    def _judge(self, batch: Batch, accuracy: ExampleMean) -> None:
        images, labels = batch
        nearest = (self(images) @ self.features.T).argmax(dim=1)
        accuracy.update((self.labels[nearest] == labels).float())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare each image with the training images."""
        self._judge(batch, self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Compare each image with the training images."""
        self._judge(batch, self.test_acc)

    def on_train_epoch_end(self) -> None:
        """Log the training loss."""
        self.log("train/loss", self.train_loss, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the validation accuracy."""
        self.log("val/acc", self.val_acc, prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Log the test accuracy."""
        self.log("test/acc", self.test_acc)

    def trained_parameters(self) -> Iterable[Any]:
        """Return the parameters of the student and the predictor; the teacher follows the student."""
        return [*self.net.parameters(), *self.predictor.parameters()]
