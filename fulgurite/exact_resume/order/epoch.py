"""The order of an epoch as a function of seed, epoch and pass."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.order.rng import derive_seed
from fulgurite.exact_resume.order.seeded import SeededIndices
from fulgurite.exact_resume.order.sharding import BatchSharding

# Samplers whose order comes from at most one generator.
SEEDED = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
SAMPLERS = (*SEEDED, SequentialSampler)


class Order(Protocol):
    """What a batch sampler needs of the order of an epoch."""

    seed: int
    epoch: int
    rank: int
    passes: int  # passes over the data that have begun in the epoch
    current_pass: int


class EpochSampler(DistributedSampler[int]):
    """One rank's shard of an epoch's order, which is a function of seed, epoch and pass.

    The order is that of the full data set for any world size. Lightning does not replace a DistributedSampler.

    Args:
        sampler: One of `SAMPLERS`; any other sampler is iterated as it is.
        seed: Seed of order and augmentation. The seed of the sampler's own generator is mixed in.
        sharding: Assigns examples to ranks.
        shared_seed: Seed that the loaders of a run share. Two samplers whose own generators have the same seed keep
            the same order, as in torch. Default: `seed`.
        batches: The batch sampler of the user's loader, whose settings count; None: those of `sharding` do.
    """

    def __init__(
        self, sampler: Any, seed: int, sharding: BatchSharding, shared_seed: int | None = None, batches: Any = None
    ) -> None:
        super().__init__(sampler, num_replicas=sharding.world_size, rank=sharding.rank)
        own = getattr(sampler, "generator", None)
        has_own = isinstance(own, torch.Generator)
        self.seed = derive_seed(seed, own.initial_seed()) if has_own else seed  # type: ignore[union-attr]
        shared = seed if shared_seed is None else shared_seed
        self.order_seed = derive_seed(shared, own.initial_seed()) if has_own else seed  # type: ignore[union-attr]
        self._batches = batches
        self._take(sampler)
        self.sharding = sharding  # of the pass that began last
        self.passes = self.current_pass = 0
        self.source_length: int | None = None  # examples of the data set when the pass began

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which begins with its first pass."""
        super().set_epoch(epoch)
        self.passes = 0

    def start_pass(self, source_length: int | None = None) -> None:
        """Take the present length of the data set, or the length that it had when an interrupted pass began."""
        if self._batches is not None and (present := self._batches.sampler) is not self.sampler:
            name_inexact(
                "the sampler of train_dataloader.batch_sampler",
                "it was replaced, and a resumed run has the one that the data module makes. Change its attributes.",
            )
            self._take(present)
        source = getattr(self.sampler, "data_source", None)
        self.source_length = source_length if source_length is not None or source is None else len(source)

    def _take(self, sampler: Any) -> None:
        own = getattr(sampler, "generator", None)
        self._takes_generator = isinstance(sampler, SEEDED) and (own is None or isinstance(own, torch.Generator))
        self.sampler = sampler

    def present_sharding(self) -> BatchSharding:
        """Return the sharding of a pass that begins now: the data set may have changed its length."""
        return replace(self._present_settings(), num_examples=len(self.sampler))

    def _present_settings(self) -> BatchSharding:
        if (batches := self._batches) is None:
            return self.sharding
        return replace(self.sharding, batch_size=batches.batch_size, drop_last=batches.drop_last)

    def epoch_order(self) -> list[int]:
        """Return the order of the pass over all ranks."""
        sampler = copy(self.sampler)  # the user's own keeps its generator
        if self.source_length is not None:
            sampler.data_source = range(self.source_length)
        if self._takes_generator:
            seed = derive_seed("order", self.order_seed, *pass_key(self))
            sampler.generator = torch.Generator().manual_seed(seed)
        order = list(sampler)
        self.sharding = replace(self._present_settings(), num_examples=len(order))
        return order

    def __len__(self) -> int:
        sharding = self.present_sharding()
        last = sharding.num_batches - 1  # all before it are full
        return 0 if last < 0 else last * sharding.batch_size + len(sharding.shard(range(sharding.num_examples), last))

    def __iter__(self) -> Iterator[int]:
        self.start_pass()
        order = self.epoch_order()
        sharding = self.sharding
        return iter([index for batch in range(sharding.num_batches) for index in sharding.shard(order, batch)])


class SeededBatchSampler(Sampler[Any]):
    """Batches of indices, each with the seed of its augmentation."""

    def __init__(self, sampler: EpochSampler, *, batched: bool = True) -> None:
        self.sampler = sampler
        self.batched = batched
        self.num_skipped = 0  # batches that the run trained on before it was resumed
        self.last_number = -1  # not needed: these batches have a length
        self.drawn = self.expected = None  # neither: their order is a function of the epoch

    def __len__(self) -> int:
        return self.sampler.present_sharding().num_batches

    def skip(self) -> None:
        """Do nothing: the order of all batches is known when they begin."""

    def __iter__(self) -> Iterator[SeededIndices]:
        order, key = self.sampler.epoch_order(), batch_key(self.sampler)
        sharding = self.sampler.sharding
        for batch in range(self.num_skipped, sharding.num_batches):
            indices = sharding.shard(order, batch)
            yield ("batch", *key, batch), indices if self.batched else indices[0]


def pass_key(order: Order) -> tuple[int, ...]:
    """Return epoch and pass; without the pass for the first one, which is the only one of a single loader."""
    return (order.epoch, order.current_pass) if order.current_pass else (order.epoch,)


def batch_key(order: Order) -> tuple[int | str, ...]:
    """Return what the seeds of the batches of a pass are made of."""
    key = (order.seed, order.epoch, order.rank)
    return (*key, f"pass {order.current_pass}") if order.current_pass else key
