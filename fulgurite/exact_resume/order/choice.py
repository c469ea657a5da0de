"""Choose the order of a loader: one that this library makes, or that of a user's own sampler."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, cast

from torch.utils.data import BatchSampler, DataLoader

from fulgurite.exact_resume.order.epoch import SAMPLERS, EpochSampler, SeededBatchSampler
from fulgurite.exact_resume.order.own import FoundGenerators, OwnBatchSampler, OwnOrder
from fulgurite.exact_resume.order.sharding import BatchSharding


def make_order(
    loader: DataLoader[Any],
    seed: int,
    shared_seed: int,
    shard: tuple[int, int] | None,
    process: int,
    generators: FoundGenerators,
) -> tuple[EpochSampler | OwnOrder, SeededBatchSampler | OwnBatchSampler]:
    """Return the order of a user's loader and its batches. `shared_seed` is that of all loaders of a run."""
    batches = cast("BatchSampler | None", loader.batch_sampler)
    if not is_standard(loader):
        own = loader.sampler if batches is None else batches
        order = OwnOrder(own, seed, shared_seed, process, generators)
        return order, OwnBatchSampler(order)
    size, drop_last = (1, False) if batches is None else (batches.batch_size, batches.drop_last)
    sampler = loader.sampler if batches is None else batches.sampler
    sharding = BatchSharding(len(cast("Sized", sampler)), size, *(shard or (0, 1)), drop_last=drop_last)
    epoch_sampler = EpochSampler(sampler, seed, sharding, shared_seed, batches)
    return epoch_sampler, SeededBatchSampler(epoch_sampler, batched=batches is not None)


def is_standard(loader: DataLoader[Any]) -> bool:
    """Return whether the order is that of a sampler of torch, in batches of torch."""
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    return type(sampler) in SAMPLERS and type(batches) in (BatchSampler, type(None))
