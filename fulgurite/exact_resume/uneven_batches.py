"""Make multi-process training match single-process training with the same global batch size."""

from __future__ import annotations

import os
from collections.abc import Sized
from dataclasses import replace
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset
from torchmetrics import Metric

from fulgurite.compat.lightning import (
    active_results,
    default_state,
    evaluation_loaders,
    set_state,
    train_loaders,
    uses_distributed_sampler,
)
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.dataloading.patch import METHODS, patch_loaders
from fulgurite.exact_resume.loader import ExactLoader
from fulgurite.exact_resume.order.epoch import EpochSampler
from fulgurite.exact_resume.order.sharding import BatchSharding

log = RankedLogger(__name__)


class UnevenBatches(Callback):
    """Counts every example exactly once over all ranks, and weights gradients of unequal last shards.

    Lightning's sampler repeats examples until all ranks have equally many, and counts them twice. Here the ranks shard
    the batches of one process. A rank without a shard of the last batch gets a padding batch, so that all ranks join
    the same collectives, and metrics are restored afterwards. Sums that a model keeps outside torchmetrics and
    `self.log` include the padding: at most two examples per rank.
    """

    def __init__(self) -> None:
        self._metrics_before_padding: list[tuple[Metric, dict[str, Any]]] | None = None
        self._is_last = False
        self._weight = 1.0  # of this rank's gradient
        self._train_order: EpochSampler | None = None
        self._evaluation_loaders: list[DataLoader[Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the data module in the process that trains: it may be a spawned one."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            datamodule.allow_zero_length_dataloader_with_multiple_devices = stage == "predict"
            shard_loaders(datamodule)

    # training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the order of gradient sums."""
        fix_bucket_order(trainer)
        self.on_train_epoch_start(trainer, pl_module)  # Lightning skips that hook when it resumes amid an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the order of the training loader, which Lightning may have reloaded."""
        # a step that takes a batch from each of several loaders has one loss for all
        loader = loaders[0] if len(loaders := train_loaders(trainer)) == 1 else None
        order = loader.order if isinstance(loader, ExactLoader) else None
        self._train_order = order if isinstance(order, EpochSampler) else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compute the weight of this rank's gradient for the last batch."""
        if self._train_order is None:
            return
        sharding = self._train_order.sharding
        if batch_idx == sharding.num_batches - 1:
            self._weight = sharding.weight(batch_idx)
            self._prepare(trainer, sharding, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Weight the gradient without changing the loss."""
        weight = self._weight
        if weight != 1 and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * weight)  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Undo a padding batch."""
        self._finish_batch(trainer)

    # evaluation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the loaders of the evaluation."""
        self._evaluation_loaders = evaluation_loaders(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Copy the metrics before a padding batch."""
        loader = self._evaluation_loaders[dataloader_idx] if self._evaluation_loaders else None
        if isinstance(order := getattr(loader, "sampler", None), EpochSampler):
            self._prepare(trainer, order.sharding, batch_idx)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Undo a padding batch."""
        self._finish_batch(trainer)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def _prepare(self, trainer: Trainer, sharding: BatchSharding, batch_idx: int) -> None:
        if batch_idx == sharding.num_batches - 1:
            self._is_last = True
            if sharding.is_padding(batch_idx):
                self._metrics_before_padding = [
                    (metric, _copy(metric.metric_state, metric.device)) for metric in _all_metrics(trainer)
                ]

    def _finish_batch(self, trainer: Trainer) -> None:
        """Restore the metrics after a padding batch, and weight Lightning's means by the number of examples."""
        if not self._is_last:
            return
        before, self._metrics_before_padding = self._metrics_before_padding, None
        self._is_last, self._weight = False, 1.0
        if before is not None:
            existing = {id(metric) for metric, _ in before}
            new = [metric for metric in _all_metrics(trainer) if id(metric) not in existing]
            # metrics that the padding batch was the first to log
            for metric, values in before + [(metric, default_state(metric)) for metric in new]:
                set_state(metric, _copy(values, metric.device))
        for mean in active_results(trainer).values():
            # Lightning 2.6 divides the sum over ranks by the world size as integers
            if mean.is_tensor and mean.meta.is_mean_reduction:
                mean.cumulated_batch_size = mean.cumulated_batch_size.float()


def fix_bucket_order(trainer: Trainer) -> None:
    """Make DDP arrange its gradient buckets before the first step.

    DDP rebuilds its buckets after the first backward pass of a process, in the order in which gradients arrived. From
    three ranks on, the position in a bucket decides the order of a sum, so the first step of a resumed run would
    differ in its last digits. This function runs a backward pass of zeros first: gradients arrive last layer first.
    """
    model = trainer.strategy.model
    if trainer.world_size < 3 or not isinstance(model, DistributedDataParallel):
        return
    if model.find_unused_parameters or model.static_graph:
        return
    module = trainer.lightning_module
    weights = [weight for weight in module.parameters() if weight.requires_grad]

    def forward(_: torch.Tensor) -> torch.Tensor:
        return torch.stack([(weight * 0).sum().float() for weight in weights]).sum()

    vars(module)["forward"] = forward
    try:
        model(torch.zeros(1, device=module.device)).backward()
    finally:
        del vars(module)["forward"]
    for weight in weights:
        weight.grad = None


def install_uneven_batches(trainer: Trainer) -> None:
    """Shard the batches of a multi-process trainer by a callback before those that read metrics."""
    if trainer.world_size > 1 and uses_distributed_sampler(trainer):
        vars(trainer)["callbacks"].insert(0, UnevenBatches())


def shard_loaders(datamodule: LightningDataModule) -> None:
    """Make the evaluation loaders of a data module yield this rank's shard."""

    def shard(loader: DataLoader[Any]) -> None:
        trainer = cast("Trainer", datamodule.trainer)
        # predictions must not contain padding
        if reason := _shard_loader(loader, trainer, pad=trainer.state.fn != TrainerFn.PREDICTING):
            log.info("examples of the last batch may be counted twice: %s", reason)

    patch_loaders(datamodule, shard, "is_sharded", METHODS[1:])


def _shard_loader(loader: DataLoader[Any], trainer: Trainer, *, pad: bool) -> str:
    """Make a loader yield this rank's shard, in place; return the reason if it cannot, or an empty string."""
    sampler, batches = loader.sampler, loader.batch_sampler
    if isinstance(sampler, EpochSampler):
        sampler.sharding = replace(sampler.sharding, pad=pad)  # the data module returned this loader before
        return ""
    if isinstance(sampler, DistributedSampler):
        return ""  # the data module shards the data itself
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable data set defines its own order"
    if type(batches) is not BatchSampler:
        return "the loader has a custom batch sampler, or none"
    ranks = trainer.distributed_sampler_kwargs or {}
    sharding = BatchSharding(
        len(cast("Sized", sampler)),
        batches.batch_size,
        ranks.get("rank", 0),
        ranks.get("num_replicas", 1),
        drop_last=batches.drop_last,
        pad=pad,
    )
    # the seed that Lightning gives its own sampler
    order = EpochSampler(sampler, int(os.getenv("PL_GLOBAL_SEED", "0")), sharding)
    vars(loader)["sampler"] = order  # DataLoader refuses to set it
    batches.sampler = order
    return ""


def _all_metrics(trainer: Trainer) -> list[Metric]:
    """Return the metrics of the model and those of `self.log` in the loop that runs."""
    own = [module for module in trainer.lightning_module.modules() if isinstance(module, Metric)]
    return own + list(active_results(trainer).values())


def _copy(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _copy(part, device) for name, part in value.items()}
    return [_copy(part, device) for part in value] if isinstance(value, list) else value.detach().clone().to(device)
