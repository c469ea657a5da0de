"""A generative adversarial net: two optimizers that take turns, by manual optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.optim import Optimizer

from src.gallery.nets.adversarial import Generator
from src.models.metrics import ExampleMean

Batch = tuple[torch.Tensor, torch.Tensor]


class AdversarialTask(LightningModule):
    """Trains a generator against a critic with the non-saturating loss of Goodfellow et al. (2014).

    Metrics: `train/loss_critic`, `train/loss_generator`, `val/loss_critic`, mean over images in nats; `val/real`, the
    share of validation images that the critic takes for real; the last two also as `test/`.

    Args:
        generator: Makes images of noise.
        critic: Maps images `[B, 1, 28, 28]` to scores `[B, 1]`.
        optimizer: Called with the parameters, once for each of the two nets.
        image_range: Least and largest value of the data's pixels; they are scaled to -1 and 1 for the critic.
    """

    def __init__(
        self,
        generator: Generator,
        critic: nn.Module,
        optimizer: Callable[..., Optimizer],
        image_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = generator, critic
        self.make_optimizer = optimizer
        self.least, self.largest = image_range
        self.critic_loss, self.generator_loss, self.val_loss, self.val_real = (ExampleMean() for _ in range(4))

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.least) * (2 / (self.largest - self.least)) - 1

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one step of the critic, then one of the generator."""
        for_critic, for_generator = cast("list[Any]", self.optimizers())
        images = self._scaled(batch[0])
        fakes = self.generator.sample(len(images))

        losses = softplus(-self.critic(images)) + softplus(self.critic(fakes.detach()))  # [B, 1]
        for_critic.zero_grad()
        self.manual_backward(losses.mean())
        for_critic.step()
        self.critic_loss.update(losses.detach())

        self.toggle_optimizer(for_generator)  # the critic needs no gradients here
        scores = self.critic(fakes)
        losses = binary_cross_entropy_with_logits(scores, torch.ones_like(scores), reduction="none")
        for_generator.zero_grad()
        self.manual_backward(losses.mean())
        for_generator.step()
        self.untoggle_optimizer(for_generator)
        self.generator_loss.update(losses.detach())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score real images and as many made ones."""
        images = self._scaled(batch[0])
        scores, fakes = self.critic(images), self.critic(self.generator.sample(len(images)))
        self.val_loss.update(softplus(-scores) + softplus(fakes))
        self.val_real.update((scores > 0).float())

    def on_train_epoch_end(self) -> None:
        """Log the training losses."""
        losses = {"train/loss_critic": self.critic_loss, "train/loss_generator": self.generator_loss}
        self.log_dict(losses, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.log_dict({"val/loss_critic": self.val_loss, "val/real": self.val_real})

    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict({"test/loss_critic": self.val_loss, "test/real": self.val_real})

    def configure_optimizers(self) -> list[Optimizer]:
        """Build one optimizer for the critic and one for the generator."""
        return [self.make_optimizer(params=net.parameters()) for net in (self.critic, self.generator)]
