"""The order of an epoch as a function of seed, epoch and pass."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
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
        self.sharding = sharding
        self.passes = self.current_pass = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which begins with its first pass."""
        super().set_epoch(epoch)
        self.passes = 0

    def epoch_order(self) -> list[int]:
        """Return the order of the pass over all ranks."""
        sampler = copy(self.sampler)  # the user's own keeps its generator
        if self._takes_generator:
            seed = derive_seed("order", self.order_seed, *pass_key(self))
            sampler.generator = torch.Generator().manual_seed(seed)
        return list(sampler)

    def __len__(self) -> int:
        sharding, last = self.sharding, self.sharding.num_batches - 1  # all before it are full
        return 0 if last < 0 else last * sharding.batch_size + len(sharding.shard(range(sharding.num_examples), last))

    def __iter__(self) -> Iterator[int]:
        order, sharding = self.epoch_order(), self.sharding
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

    def __init__(
        self, own: Any, seed: int, shared_seed: int, rank: int, states: dict[int, tuple[Any, str, int]]
    ) -> None:
        self.own, self.seed, self.rank = own, seed, rank
        self.sharding: BatchSharding | None = None
        self.epoch = self.passes = self.current_pass = 0
        self.attributes: list[dict[str, Any]] = []  # plain ones of the samplers at the start of the pass
        self.loaded_attributes: list[dict[str, Any]] = []  # of the pass that is resumed
        self._seeds: dict[int, int] = {}
        self._generators = find_generators(own)
        for generator in self._generators:
            # a generator of two samplers must not give both the same order
            _, text, first = states.setdefault(id(generator), (generator, describe_state(generator), seed))
            self._seeds[id(generator)] = derive_seed(shared_seed if first == seed else seed, text)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also of the user's samplers that have one."""
        self.epoch, self.passes = epoch, 0
        for sampler in self._samplers():
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)

    def _samplers(self) -> list[Any]:
        found = (self.own, getattr(self.own, "sampler", None))
        return [sampler for sampler in found if hasattr(sampler, "__dict__")]

    def start_pass(self) -> None:
        """Restore what the samplers kept in a resumed pass, and seed their generators for the pass that begins."""
        for sampler, values in zip(self._samplers(), self.loaded_attributes, strict=False):
            vars(sampler).update(values)
        self.loaded_attributes = []
        self.attributes = [
            {name: value for name, value in vars(sampler).items() if type(value) in (bool, int, float, str)}
            for sampler in self._samplers()
        ]
        for generator in self._generators:
            seed_generator(generator, derive_seed("order", self._seeds[id(generator)], *pass_key(self)))


class SeededBatchSampler(Sampler[Any]):
    """Batches of indices, each with the seed of its augmentation."""

    def __init__(self, sampler: EpochSampler, *, batched: bool = True) -> None:
        self.sampler = sampler
        self.sharding = sampler.sharding
        self.batched = batched
        self.num_skipped = 0  # batches that the run trained on before it was resumed

    def __len__(self) -> int:
        return self.sharding.num_batches

    def __iter__(self) -> Iterator[SeededIndices]:
        order, key = self.sampler.epoch_order(), batch_key(self.sampler)
        for batch in range(self.num_skipped, len(self)):
            indices = self.sharding.shard(order, batch)
            yield derive_seed("batch", *key, batch), indices if self.batched else indices[0]


class OwnBatchSampler(StandIn, Sampler[Any]):
    """The batches of a user's sampler, each with the seed of its augmentation.

    The sampler draws from seeded generators, so that a resumed run gets the same batches and skips those it had.
    """

    OWN = frozenset({"sampler", "num_skipped"})

    def __init__(self, order: OwnOrder) -> None:
        self._wrapped = order.own
        self.sampler = order
        self.num_skipped = 0

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[SeededIndices]:
        order, key = self.sampler, batch_key(self.sampler)
        order.start_pass()
        rng = ScopedRng()  # one a pass: it finds the same when the skipped batches are drawn again
        batches = rng.run(derive_seed("order", *key), iter, self._wrapped)
        for batch in count():
            indices = rng.run(derive_seed("order", *key, batch), _next, batches)
            if indices is None:
                return
            if batch >= self.num_skipped:
                yield derive_seed("batch", *key, batch), indices


def pass_key(order: Order) -> tuple[int, ...]:
    """Return epoch and pass; without the pass for the first one, which is the only one of a single loader."""
    return (order.epoch, order.current_pass) if order.current_pass else (order.epoch,)


def batch_key(order: Order) -> tuple[int | str, ...]:
    """Return what the seeds of the batches of a pass are made of."""
    key = (order.seed, order.epoch, order.rank)
    return (*key, f"pass {order.current_pass}") if order.current_pass else key


def _next(batches: Iterator[Any]) -> Any:
    return next(batches, None)
