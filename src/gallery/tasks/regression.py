"""Regression: real-valued targets, squared error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from src.gallery.tasks.task import Task
from src.models.metrics import ExampleMean

Inputs = torch.Tensor | tuple[torch.Tensor, ...]
Batch = tuple[Inputs, torch.Tensor]


class LogRMSE(Metric):
    """Root of the mean squared difference of the logarithms, the score of Kaggle's house prices (section 4.10).

    Predictions below 1 count as 1, as in the book.
    """

    full_state_update = False
    total: torch.Tensor
    num_examples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: torch.Tensor, targets: torch.Tensor) -> None:
        """Add predictions and targets of one shape."""
        self.total += (predictions.clamp(min=1).log() - targets.log()).square().sum()
        self.num_examples += targets.numel()

    def compute(self) -> torch.Tensor:
        """Return the score, scalar."""
        return (self.total / self.num_examples).sqrt()


class Regression(Task):
    """Trains a net to predict real values, and logs the loss once per epoch.

    Metrics: `train/loss`, `val/loss`, `test/loss`, mean over examples of the squared error, or of its half;
    `train/<name>`, `val/<name>` and `test/<name>` for each of `metrics`; `train/weight_norm`, the L2 norm of
    all weights but the biases.

    Args:
        net: Maps inputs to predictions `[B, ...]` of the targets' shape. A tuple of inputs is passed as arguments.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
        half: Use half of the squared error, which the book does where it derives the gradient by hand.
        reduction: `mean` or `sum` of the batch is minimized. Metrics are means with both.
        decay_bias: Apply the optimizer's weight decay to biases too.
        metrics: Name to metric, e.g. `{log_rmse: {_target_: src.gallery.tasks.regression.LogRMSE}}`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        half: bool = False,
        reduction: Literal["mean", "sum"] = "mean",
        decay_bias: bool = True,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(net, optimizer, scheduler, scheduler_interval)
        self.factor = 0.5 if half else 1.0
        self.reduction, self.decay_bias = reduction, decay_bias
        self.train_loss, self.val_loss, self.test_loss = ExampleMean(), ExampleMean(), ExampleMean()
        collection = MetricCollection(dict(metrics or {}))
        self.train_metrics, self.val_metrics, self.test_metrics = (collection.clone() for _ in range(3))

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Return predictions `[B, ...]`."""
        predictions: torch.Tensor = self.net(inputs) if isinstance(inputs, torch.Tensor) else self.net(*inputs)
        return predictions

    def _step(self, batch: Batch, loss: ExampleMean, metrics: MetricCollection) -> torch.Tensor:
        inputs, targets = batch
        predictions = self(inputs)
        losses: torch.Tensor = self.factor * (predictions - targets).square().flatten(1).mean(dim=1)  # [B]
        loss.update(losses.detach())
        metrics.update(predictions.detach(), targets)
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean or the sum of the losses, scalar."""
        losses = self._step(batch, self.train_loss, self.train_metrics)
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation metrics."""
        self._step(batch, self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test metrics."""
        self._step(batch, self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return predictions `[B, ...]`."""
        predictions: torch.Tensor = self(batch[0])
        return predictions

    def _log_epoch(self, stage: str, loss: ExampleMean, metrics: MetricCollection) -> None:
        self.log(f"{stage}/loss", loss, prog_bar=True)
        for name, metric in metrics.items():
            self.log(f"{stage}/{name}", metric, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Log the training metrics and the norm of the weights."""
        self._log_epoch("train", self.train_loss, self.train_metrics)
        weights = [parameter.detach().square().sum() for parameter in self._weights()]
        self.log("train/weight_norm", torch.stack(weights).sum().sqrt())

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_epoch("val", self.val_loss, self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_epoch("test", self.test_loss, self.test_metrics)

    def _weights(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if not name.endswith("bias")]

    def trained_parameters(self) -> Iterable[Any]:
        """Return all parameters, with the biases in a group without weight decay if `decay_bias` is false."""
        if self.decay_bias:
            return self.parameters()
        biases = [parameter for name, parameter in self.named_parameters() if name.endswith("bias")]
        return [{"params": self._weights()}, {"params": biases, "weight_decay": 0.0}]
