"""The classification task: one label an example, cross entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torchmetrics import MaxMetric, Metric

from fulgurite.core.errors import UserError
from src.models.metrics import Accuracy, ExampleMean

Batch = tuple[torch.Tensor, torch.Tensor]


class Classifier(LightningModule):
    """Trains any net that maps a batch to one score a class.

    Logs once an epoch `train/loss`, `train/acc`, `val/loss`, `val/acc`, `val/acc_best` (the highest `val/acc` so far),
    `test/loss` and `test/acc`. Sums are kept on the device and are exact over batches of unequal size and over ranks.

    Args:
        net: Maps examples `[B, ...]` to scores `[B, num_classes]`.
        num_classes: Labels are 0 to `num_classes - 1`.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer; None keeps the learning rate constant.
        scheduler_interval: Whether the scheduler moves each epoch or each optimizer step.
        scheduler_frequency: Intervals between two moves.
        scheduler_monitor: Metric that ReduceLROnPlateau watches; other schedulers do not look at it.
        compile: Compile the net, in place, when training starts. Parameter names do not change, so checkpoints of
            compiled and plain runs are interchangeable.
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
        compile: bool = False,  # noqa: A002 - the name users of torch.compile look for
    ) -> None:
        super().__init__()
        # modules and partials would make the checkpoint a pickle of code; see decision 5
        self.save_hyperparameters(logger=False, ignore=["net", "optimizer", "scheduler"])
        self.net = net
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.losses = nn.ModuleDict({f"{split}_loss": ExampleMean() for split in SPLITS})
        self.accuracies = nn.ModuleDict({f"{split}_acc": Accuracy() for split in SPLITS})
        self.val_acc_best = MaxMetric()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what Lightning notes about its current hook goes past `nn.Module`.

        Lightning sets it some 25 times a step, and `nn.Module` looks each time whether it is a parameter.
        """
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores `[B, num_classes]` for examples `[B, ...]`."""
        scores: torch.Tensor = self.net(x)
        return scores

    def setup(self, stage: str) -> None:
        """Compile the net before training, where that was asked for."""
        if self.hparams["compile"] and stage == "fit":
            self.net.compile()

    def configure_model(self) -> None:
        """Cut the net's layers over the devices when the strategy brings a device mesh.

        Under `trainer=fsdp` each layer is cut as it is. Under `trainer=tensor_parallel` the net must say how, by a
        method `tensor_parallel_plan()` that returns a style for each name of a layer, as torch's `parallelize_module`
        takes it.

        Raises:
            UserError: The net does not say how.
        """
        if self.device_mesh is None or "data_parallel" not in (self.device_mesh.mesh_dim_names or ()):
            return
        from torch.distributed.fsdp import FSDPModule, fully_shard
        from torch.distributed.tensor.parallel import parallelize_module

        if isinstance(self.net, FSDPModule):  # Lightning asks again before the test
            return
        tensor_mesh = self.device_mesh["tensor_parallel"]
        if tensor_mesh.size() > 1:
            if not hasattr(self.net, "tensor_parallel_plan"):
                raise UserError(
                    f"trainer.strategy.tensor_parallel_size={tensor_mesh.size()}: {type(self.net).__name__} does "
                    "not say how its layers are cut; add a tensor_parallel_plan as src/models/nets/dense.py has"
                )
            parallelize_module(self.net, tensor_mesh, cast("Any", self.net).tensor_parallel_plan())
        mesh = self.device_mesh["data_parallel"]
        for layer in self.net.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                fully_shard(layer, mesh=mesh)
        fully_shard(self.net, mesh=mesh)

    def on_train_start(self) -> None:
        """Forget what the sanity check measured."""
        if self.trainer.ckpt_path is None:
            self.val_acc_best.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean loss of the batch, a scalar."""
        return self._score("train", batch)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self._log("train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation's sums."""
        self._score("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation's means and the best accuracy so far."""
        accuracy = self.accuracies["val_acc"]
        assert isinstance(accuracy, Metric)
        self.val_acc_best.update(accuracy.compute())
        self._log("val")
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test's sums."""
        self._score("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log the test's means."""
        self._log("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return class probabilities `[B, num_classes]`."""
        scores: torch.Tensor = self.net(batch[0])
        return scores.softmax(dim=-1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and, where there is one, its scheduler."""
        optimizer = self.make_optimizer(params=self.parameters())
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self.make_scheduler(optimizer=optimizer),
                "interval": self.hparams["scheduler_interval"],
                "frequency": self.hparams["scheduler_frequency"],
                "monitor": self.hparams["scheduler_monitor"],
            },
        }

    def _score(self, split: str, batch: Batch) -> torch.Tensor:
        """Add the batch to the split's sums, and return its loss: the mean in training, else each example's `[B]`."""
        examples, labels = batch
        scores = self.net(examples)
        loss = cross_entropy(scores, labels, reduction="mean" if split == "train" else "none")
        self.losses[f"{split}_loss"].update(loss.detach(), labels.numel())  # type: ignore[operator]
        self.accuracies[f"{split}_acc"].update(scores.detach(), labels)  # type: ignore[operator]
        return loss

    def _log(self, split: str) -> None:
        # a metric object, not a number: Lightning then reduces over ranks and resets it after the epoch
        self.log(f"{split}/loss", self.losses[f"{split}_loss"], prog_bar=split != "test")  # type: ignore[arg-type]
        self.log(f"{split}/acc", self.accuracies[f"{split}_acc"], prog_bar=split != "test")  # type: ignore[arg-type]


SPLITS = ("train", "val", "test")
