"""Classification: one label per example, cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torchmetrics import MaxMetric
from torchmetrics.classification import MulticlassAccuracy

from src.models.metrics import ExampleMean
from src.models.sharding import shard_net

Batch = tuple[torch.Tensor, torch.Tensor]


class Classifier(LightningModule):
    """Trains any net that maps a batch to one score per class, and logs loss and accuracy once per epoch.

    Metrics: `train/loss`, `val/loss`, `test/loss`, `train/acc`, `val/acc`, `test/acc`, `val/acc_best` (highest so far).

    Args:
        net: Maps examples `[B, ...]` to scores `[B, num_classes]`.
        num_classes: Labels are 0 to `num_classes - 1`.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
        scheduler_frequency: Intervals between two steps of the scheduler.
        scheduler_monitor: Metric that ReduceLROnPlateau watches. Other schedulers ignore it.
        compile: Compile the net in place when training starts. Checkpoints stay those of a plain run.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_frequency: int = 1,
        scheduler_monitor: str = "val/loss",
        compile: bool = False,  # noqa: A002 - the name that users of torch.compile look for
    ) -> None:
        super().__init__()
        # checkpoints load with weights_only=True, which refuses modules and partials
        self.save_hyperparameters(logger=False, ignore=["net", "optimizer", "scheduler"])
        self.net = net
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        accuracy = partial(MulticlassAccuracy, num_classes, average="micro", validate_args=False)
        self.train_loss, self.val_loss, self.test_loss = ExampleMean(), ExampleMean(), ExampleMean()
        self.train_acc, self.val_acc, self.test_acc = accuracy(), accuracy(), accuracy()
        self.val_acc_best = MaxMetric()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores `[B, num_classes]` for examples `[B, ...]`."""
        return cast("torch.Tensor", self.net(x))

    def setup(self, stage: str) -> None:
        """Compile the net before training if `compile` is set."""
        if self.hparams["compile"] and stage == "fit":
            self.net.compile()

    def configure_model(self) -> None:
        """Shard the net under `trainer=fsdp` and `trainer=tensor_parallel`."""
        shard_net(self.net, self.device_mesh)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean loss of the batch, scalar."""
        return self._step(batch, self.train_loss, self.train_acc).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation metrics."""
        self._step(batch, self.val_loss, self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test metrics."""
        self._step(batch, self.test_loss, self.test_acc)

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return class probabilities `[B, num_classes]`."""
        return torch.softmax(self.net(batch[0]), dim=-1)

    def _step(self, batch: Batch, mean_loss: ExampleMean, accuracy: MulticlassAccuracy) -> torch.Tensor:
        scores, labels = self.net(batch[0]), batch[1]
        losses = cross_entropy(scores, labels, reduction="none")  # [B]
        mean_loss.update(losses)
        accuracy.update(scores, labels)
        return losses

    def on_train_epoch_end(self) -> None:
        """Log the training metrics; Lightning reduces metric objects over ranks and resets them."""
        self.log_dict({"train/loss": self.train_loss, "train/acc": self.train_acc}, prog_bar=True)

    def on_train_start(self) -> None:
        """Forget the best accuracy of the sanity check."""
        self.val_acc_best.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, and the best accuracy so far."""
        self.log_dict({"val/loss": self.val_loss, "val/acc": self.val_acc}, prog_bar=True)
        self.val_acc_best.update(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict({"test/loss": self.test_loss, "test/acc": self.test_acc})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and the scheduler."""
        optimizer = self.make_optimizer(params=self.parameters())
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        scheduler: Any = {key: self.hparams[f"scheduler_{key}"] for key in ("interval", "frequency", "monitor")}
        scheduler["scheduler"] = self.make_scheduler(optimizer=optimizer)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
