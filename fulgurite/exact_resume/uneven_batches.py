"""Makes several processes train and evaluate to what one process with the same global batch comes to."""

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
from fulgurite.exact_resume.ddp_buckets import settle_buckets
from fulgurite.exact_resume.loader import EpochSampler, ExactLoader
from fulgurite.exact_resume.sharding import BatchSharding

log = RankedLogger(__name__)
MARK = "is_shared"  # on a loader method that was wrapped
Values = dict[str, Any]


class UnevenBatches(Callback):
    """Counts every example once, over all ranks, and weighs a last batch whose parts are not equally large.

    Lightning's own sampler repeats examples until all ranks have equally many, and counts them twice. Here the ranks
    share the batches of one process; one that has no part of the last batch is given a filler, so that all ranks meet
    in the same collectives, and all that it has added to metrics is taken out again. Sums that a model keeps by itself,
    outside torchmetrics and `self.log`, see the filler: two examples a rank at most.
    """

    def __init__(self) -> None:
        self._before: list[tuple[Metric, Values]] | None = None  # metrics as they were before a filler
        self._is_last = False
        self._weight = 1.0  # of this rank's part of the batch
        self._train_sharding: BatchSharding | None = None
        self._evaluation_loaders: list[DataLoader[Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the data module; here, in the process that trains, which may be a spawned one."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            datamodule.allow_zero_length_dataloader_with_multiple_devices = stage == "predict"
            for name in ("val_dataloader", "test_dataloader", "predict_dataloader"):
                make = getattr(datamodule, name)
                # Lightning asks whether a method is there by looking whether it is overridden
                if is_overridden(name, datamodule, LightningDataModule) and not hasattr(make, MARK):
                    vars(datamodule)[name] = _shared(make, datamodule)

    # training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle in which order gradients are summed."""
        settle_buckets(trainer)
        self.on_train_epoch_start(trainer, pl_module)  # Lightning skips that hook when it resumes amid an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sharding of the training loader, which Lightning may have reloaded."""
        # a step that takes a batch from each of several loaders has one loss for all
        loader = loaders[0] if len(loaders := train_loaders(trainer)) == 1 else None
        self._train_sharding = loader.order.sharing if isinstance(loader, ExactLoader) else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Find out what this rank's part of the batch is worth."""
        sharing = self._train_sharding
        if sharing is not None and batch_idx == sharing.batches - 1:
            self._weight = sharing.weight(batch_idx)
            self._note(trainer, sharing, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Weigh the gradient; the loss stays as it is."""
        weight = self._weight
        if weight != 1 and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * weight)  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget a filler."""
        self._end_batch(trainer)

    # evaluation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get the loaders of the evaluation."""
        self._evaluation_loaders = evaluation_loaders(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note what metrics hold before a filler."""
        self._note_loader(trainer, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Forget a filler."""
        self._end_batch(trainer)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def _note_loader(self, trainer: Trainer, batch_idx: int, dataloader_idx: int) -> None:
        if not self._evaluation_loaders:
            return
        order = getattr(self._evaluation_loaders[dataloader_idx], "sampler", None)
        if isinstance(order, EpochSampler):
            self._note(trainer, order.sharing, batch_idx)

    def _note(self, trainer: Trainer, sharing: BatchSharding, batch_idx: int) -> None:
        if batch_idx == sharing.batches - 1:
            self._is_last = True
            if sharing.is_padding(batch_idx):
                self._before = [(metric, _values(metric)) for metric in _metrics(trainer)]

    def _end_batch(self, trainer: Trainer) -> None:
        """Take out what a filler has added, and have Lightning's means weighed by all of the examples."""
        if not self._is_last:
            return
        before, self._before, self._is_last, self._weight = self._before, None, False, 1.0
        if before is not None:
            known = {id(metric) for metric, _ in before}
            # what the filler was the first to log has no value of before
            before += [(metric, default_state(metric)) for metric in _metrics(trainer) if id(metric) not in known]
            for metric, values in before:
                for name, value in values.items():
                    setattr(metric, name, _copy(value, metric.device))
                drop_cached_value(metric)
        for mean in active_results(trainer).values():
            # Lightning divides the number over all ranks by their number, in whole numbers
            if mean.is_tensor and mean.meta.is_mean_reduction:
                mean.cumulated_batch_size = mean.cumulated_batch_size.float()


def install_uneven_batches(trainer: Trainer) -> None:
    """Have the processes of a trainer share their batches; nothing is done for one process.

    Args:
        trainer: Gets a callback more, before those that look at metrics.
    """
    if trainer.world_size > 1 and uses_distributed_sampler(trainer):
        vars(trainer)["callbacks"].insert(0, UnevenBatches())


def _shared(make: Callable[[], Any], datamodule: LightningDataModule) -> Callable[[], Any]:
    @wraps(make)
    def make_shared() -> Any:
        loaders, trainer = make(), cast("Trainer", datamodule.trainer)
        predicts = trainer.state.fn == TrainerFn.PREDICTING
        for loader in each_loader(loaders):
            if why := _share(loader, trainer, fill=not predicts):
                log.info("examples may be counted twice in the last batch: %s", why)
        return loaders

    setattr(make_shared, MARK, True)
    return make_shared


def _share(loader: DataLoader[Any], trainer: Trainer, *, fill: bool) -> str:
    """Have a loader hand out this rank's part; return what keeps it from that, or an empty string.

    Args:
        loader: Changed in place, so that a subclass stays what it is.
        trainer: Knows the ranks.
        fill: Whether a rank without a part of the last batch gets a filler; predictions would be those of nobody.
    """
    sampler, batches = loader.sampler, loader.batch_sampler
    if isinstance(sampler, EpochSampler):
        sampler.sharing = replace(sampler.sharing, fill=fill)  # the data module gave this loader before
        return ""
    if isinstance(sampler, DistributedSampler):
        return ""  # the data module shares out by itself
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable data set has an order of its own"
    if type(batches) is not BatchSampler:
        return "the loader has a batch sampler of its own, or none"
    ranks = trainer.distributed_sampler_kwargs or {}
    sharing = BatchSharding(
        len(cast("Sized", sampler)),
        batches.batch_size,
        ranks.get("rank", 0),
        ranks.get("num_replicas", 1),
        drop_last=batches.drop_last,
        fill=fill,
    )
    # as Lightning seeds the one it would put in
    order = EpochSampler(sampler, int(os.getenv("PL_GLOBAL_SEED", "0")), sharing)
    vars(loader)["sampler"] = order  # set behind the back of a loader that would refuse it
    batches.sampler = order
    return ""


def _metrics(trainer: Trainer) -> list[Metric]:
    """Return the metrics of the model and those that `self.log` has made in the loop that runs."""
    own = [part for part in trainer.lightning_module.modules() if isinstance(part, Metric)]
    return own + list(active_results(trainer).values())


def _values(metric: Metric) -> Values:
    return {name: _copy(value, metric.device) for name, value in metric.metric_state.items()}


def _copy(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_copy(part, device) for part in value]
    return value.detach().clone().to(device)
