"""The order of an epoch as a function of seed, epoch and pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from itertools import count
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

from fulgurite.exact_resume.order.generators import describe_state, find_generators, seed_generator
from fulgurite.exact_resume.order.rng import ScopedRng, derive_seed
from fulgurite.exact_resume.order.seeded import SeededIndices, StandIn
from fulgurite.exact_resume.order.sharding import BatchSharding

# Samplers whose order comes from at most one generator.
SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)

FoundGenerators = dict[int, tuple[Any, str, int]]  # by id: the generator, its first state, the seed of its first loader


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
    """

    def __init__(self, sampler: Any, seed: int, sharding: BatchSharding, shared_seed: int | None = None) -> None:
        super().__init__(sampler, num_replicas=sharding.world_size, rank=sharding.rank)
        own = getattr(sampler, "generator", None)
        has_own = isinstance(own, torch.Generator)
        self.sampler = sampler
        self.seed = derive_seed(seed, own.initial_seed()) if has_own else seed  # type: ignore[union-attr]
        shared = seed if shared_seed is None else shared_seed
        self.order_seed = derive_seed(shared, own.initial_seed()) if has_own else seed  # type: ignore[union-attr]
        self._takes_generator = not isinstance(sampler, SequentialSampler) and (own is None or has_own)
        self.sharding = sharding  # of the pass that began last
        self.passes = self.current_pass = 0
        self.source_length: int | None = None  # examples of the data set when the pass began

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which begins with its first pass."""
        super().set_epoch(epoch)
        self.passes = 0

    def start_pass(self, source_length: int | None = None) -> None:
        """Take the present length of the data set, or the length that it had when an interrupted pass began."""
        source = getattr(self.sampler, "data_source", None)
        self.source_length = source_length if source_length is not None or source is None else len(source)

    def present_sharding(self) -> BatchSharding:
        """Return the sharding of a pass that begins now: the data set may have changed its length."""
        return replace(self.sharding, num_examples=len(self.sampler))

    def epoch_order(self) -> list[int]:
        """Return the order of the pass over all ranks."""
        sampler = copy(self.sampler)  # the user's own keeps its generator
        if self.source_length is not None:
            sampler.data_source = range(self.source_length)
        if self._takes_generator:
            seed = derive_seed("order", self.order_seed, *pass_key(self))
            sampler.generator = torch.Generator().manual_seed(seed)
        order = list(sampler)
        self.sharding = replace(self.sharding, num_examples=len(order))
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


class OwnOrder:
    """The order of a user's own sampler or batch sampler.

    Args:
        own: Yields indices, or lists of them.
        seed: Seed of augmentation and of what the sampler draws from the global generators.
        shared_seed: Seed that the loaders of a run share; for the generators that the sampler keeps.
        rank: Rank of the process, where the data module shards the data itself.
        states: Generators that samplers of the run keep; new ones are added.
    """

    def __init__(self, own: Any, seed: int, shared_seed: int, rank: int, states: FoundGenerators) -> None:
        self.own, self.seed, self.rank = own, seed, rank
        self.sharding: BatchSharding | None = None
        self.epoch = self.passes = self.current_pass = 0
        self._seeds: dict[int, int] = {}
        self.generators = find_generators(own)
        for generator in self.generators:
            # a generator of two samplers must not give both the same order
            _, text, first = states.setdefault(id(generator), (generator, describe_state(generator), seed))
            self._seeds[id(generator)] = derive_seed(shared_seed if first == seed else seed, text)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also of the user's samplers that have one."""
        self.epoch, self.passes = epoch, 0
        for sampler in (self.own, getattr(self.own, "sampler", None)):
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)

    def start_pass(self, source_length: int | None = None) -> None:
        """Seed the generators of the samplers for the pass that begins."""
        for generator in self.generators:
            seed_generator(generator, derive_seed("order", self._seeds[id(generator)], *pass_key(self)))


class SeededBatchSampler(Sampler[Any]):
    """Batches of indices, each with the seed of its augmentation."""

    def __init__(self, sampler: EpochSampler, *, batched: bool = True) -> None:
        self.sampler = sampler
        self.batched = batched
        self.num_skipped = 0  # batches that the run trained on before it was resumed
        self.last_number = -1  # not needed: these batches have a length

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


class OwnBatchSampler(StandIn, Sampler[Any]):
    """The batches of a user's sampler, each with the seed of its augmentation.

    The sampler draws from seeded generators, so that a resumed run gets the same batches and skips those it had.
    """

    OWN = frozenset({"sampler", "num_skipped", "last_number"})

    def __init__(self, order: OwnOrder) -> None:
        self._wrapped = order.own
        self.sampler = order
        self.num_skipped = 0
        self.last_number = -1  # of the last batch of the pass, where the user's batches have no length
        self._is_sized = _is_sized(order.own)
        self._draw: Callable[[int], Any] = _nothing  # of the pass that began last
        self._to_skip = 0
        self._following: Any = None  # the batch that was drawn ahead to find the last one

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[SeededIndices]:
        key, self.last_number = batch_key(self.sampler), -1
        rng = ScopedRng()  # one a pass: it finds the same when the skipped batches are drawn again
        batches = rng.run(derive_seed("order", *key), iter, self._wrapped)
        self._draw = lambda batch: rng.run(derive_seed("order", *key, batch), _next, batches)
        self._to_skip, self._following = self.num_skipped, None
        return self._next_batches()

    def skip(self) -> None:
        """Draw the batches that the run trained on, and the one drawn ahead of them where there is no length.

        DataLoader makes two iterators where it has workers.
        """
        for batch in range(self._to_skip):
            self._draw(batch)
        if self._to_skip and not self._is_sized:
            self._following = self._draw(self._to_skip)
        self._to_skip = 0

    def _next_batches(self) -> Iterator[SeededIndices]:
        self.skip()
        key, first, draw = batch_key(self.sampler), self.num_skipped, self._draw
        following = self._following if first or self._is_sized else draw(first)
        for batch in count(first):
            indices = draw(batch) if self._is_sized else following
            if indices is None:
                return
            if not self._is_sized and (following := draw(batch + 1)) is None:
                self.last_number = batch + 1
            yield ("batch", *key, batch), indices


def pass_key(order: Order) -> tuple[int, ...]:
    """Return epoch and pass; without the pass for the first one, which is the only one of a single loader."""
    return (order.epoch, order.current_pass) if order.current_pass else (order.epoch,)


def batch_key(order: Order) -> tuple[int | str, ...]:
    """Return what the seeds of the batches of a pass are made of."""
    key = (order.seed, order.epoch, order.rank)
    return (*key, f"pass {order.current_pass}") if order.current_pass else key


def _nothing(_batch: int) -> Any:
    return None


def _is_sized(batches: Any) -> bool:
    try:
        len(batches)
    except (TypeError, NotImplementedError):  # a BatchSampler of a sampler without a length
        return False
    return True


def _next(batches: Iterator[Any]) -> Any:
    return next(batches, None)
