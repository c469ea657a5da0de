"""Make multi-process training match single-process training with the same global batch size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sized
from dataclasses import replace
from functools import wraps
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset
from torchmetrics import Metric

from fulgurite.compat.lightning import (
    active_results,
    default_state,
    drop_cached_value,
    evaluation_loaders,
    train_loaders,
    uses_distributed_sampler,
)
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.dataloading.patch import each_loader
from fulgurite.exact_resume.ddp_buckets import fix_bucket_order
from fulgurite.exact_resume.loader import EpochSampler, ExactLoader
from fulgurite.exact_resume.sharding import BatchSharding

log = RankedLogger(__name__)
MARK = "is_sharded"  # attribute of a wrapped loader method
Values = dict[str, Any]


class UnevenBatches(Callback):
    """Counts every example exactly once over all ranks, and weights gradients of unequal last shards.

    Lightning's sampler repeats examples until all ranks have equally many, and counts them twice. Here the ranks shard
    the batches of one process. A rank without a shard of the last batch gets a padding batch, so that all ranks join
    the same collectives, and metrics are restored afterwards. Sums that a model keeps outside torchmetrics and
    `self.log` include the padding: at most two examples per rank.
    """

    def __init__(self) -> None:
        self._metrics_before_padding: list[tuple[Metric, Values]] | None = None
        self._is_last = False
        self._weight = 1.0  # of this rank's gradient
        self._train_sharding: BatchSharding | None = None
        self._evaluation_loaders: list[DataLoader[Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the data module in the process that trains: it may be a spawned one."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            datamodule.allow_zero_length_dataloader_with_multiple_devices = stage == "predict"
            for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
                make = getattr(datamodule, name)
                # Lightning uses a loader method only if it is overridden
                if is_overridden(name, datamodule, LightningDataModule) and not hasattr(make, MARK):
                    vars(datamodule)[name] = _wrap_method(make, datamodule)

    # training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the order of gradient sums."""
        fix_bucket_order(trainer)
        self.on_train_epoch_start(trainer, pl_module)  # Lightning skips that hook when it resumes amid an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the sharding of the training loader, which Lightning may have reloaded."""
        # a step that takes a batch from each of several loaders has one loss for all
        loader = loaders[0] if len(loaders := train_loaders(trainer)) == 1 else None
        self._train_sharding = loader.order.sharding if isinstance(loader, ExactLoader) else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compute the weight of this rank's gradient for the last batch."""
        sharding = self._train_sharding
        if sharding is not None and batch_idx == sharding.num_batches - 1:
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
        self._prepare_evaluation(trainer, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Undo a padding batch."""
        self._finish_batch(trainer)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def _prepare_evaluation(self, trainer: Trainer, batch_idx: int, dataloader_idx: int) -> None:
        if not self._evaluation_loaders:
            return
        order = getattr(self._evaluation_loaders[dataloader_idx], "sampler", None)
        if isinstance(order, EpochSampler):
            self._prepare(trainer, order.sharding, batch_idx)

    def _prepare(self, trainer: Trainer, sharding: BatchSharding, batch_idx: int) -> None:
        if batch_idx == sharding.num_batches - 1:
            self._is_last = True
            if sharding.is_padding(batch_idx):
                self._metrics_before_padding = [(metric, _copy_state(metric)) for metric in _all_metrics(trainer)]

    def _finish_batch(self, trainer: Trainer) -> None:
        """Restore the metrics after a padding batch, and weight Lightning's means by the number of examples."""
        if not self._is_last:
            return
        before, self._metrics_before_padding = self._metrics_before_padding, None
        self._is_last, self._weight = False, 1.0
        if before is not None:
            existing = {id(metric) for metric, _ in before}
            # metrics that the padding batch was the first to log
            before += [
                (metric, default_state(metric)) for metric in _all_metrics(trainer) if id(metric) not in existing
            ]
            for metric, values in before:
                for name, value in values.items():
                    setattr(metric, name, _copy(value, metric.device))
                drop_cached_value(metric)
        for mean in active_results(trainer).values():
            # Lightning 2.6 divides the sum over ranks by the world size as integers
            if mean.is_tensor and mean.meta.is_mean_reduction:
                mean.cumulated_batch_size = mean.cumulated_batch_size.float()


def install_uneven_batches(trainer: Trainer) -> None:
    """Shard the batches of a multi-process trainer.

    Args:
        trainer: Its callbacks get one more, before those that read metrics.
    """
    if trainer.world_size > 1 and uses_distributed_sampler(trainer):
        vars(trainer)["callbacks"].insert(0, UnevenBatches())


def _wrap_method(make: Callable[[], Any], datamodule: LightningDataModule) -> Callable[[], Any]:
    @wraps(make)
    def make_sharded() -> Any:
        loaders, trainer = make(), cast("Trainer", datamodule.trainer)
        pad = trainer.state.fn != TrainerFn.PREDICTING
        for loader in each_loader(loaders):
            if reason := _shard_loader(loader, trainer, pad=pad):
                log.info("examples of the last batch may be counted twice: %s", reason)
        return loaders

    setattr(make_sharded, MARK, True)
    return make_sharded


def _shard_loader(loader: DataLoader[Any], trainer: Trainer, *, pad: bool) -> str:
    """Make a loader yield this rank's shard; return the reason if it cannot, or an empty string.

    Args:
        loader: Changed in place, which keeps the type of a subclass.
        trainer: The trainer of the run.
        pad: Whether a rank without a shard gets a padding batch; predictions must not contain padding.
    """
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


def _copy_state(metric: Metric) -> Values:
    return {name: _copy(value, metric.device) for name, value in metric.metric_state.items()}


def _copy(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_copy(item, device) for item in value]
    return value.detach().clone().to(device)
