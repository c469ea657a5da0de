"""The order of a user's own sampler, drawn from seeded generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from lightning.fabric.utilities.data import sized_len
from torch.utils.data import Sampler

from fulgurite.exact_resume.order.drawn import Drawn
from fulgurite.exact_resume.order.epoch import batch_key, pass_key
from fulgurite.exact_resume.order.generators import describe_state, find_generators, seed_generator
from fulgurite.exact_resume.order.rng import RNGS, ScopedRng, derive_seed
from fulgurite.exact_resume.order.seeded import SeededIndices

FoundGenerators = dict[int, tuple[Any, str, int]]  # by id: the generator, its first state, the seed of its first loader


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


class OwnBatchSampler(Sampler[Any]):
    """The batches of a user's sampler, each with the seed of its augmentation.

    The sampler draws from seeded generators, so that a resumed run gets the same batches and skips those it had.
    """

    def __init__(self, order: OwnOrder) -> None:
        self._wrapped = order.own
        self.sampler = order
        self.num_skipped = 0
        self.last_number = -1  # of the last batch of the pass, where the user's batches have no length
        self.expected: list[int] | None = None  # what a resumed pass must draw: `Drawn.state`
        self.drawn = Drawn("")  # of the pass that began last
        self._is_sized = sized_len(order.own) is not None  # not that of a sampler without a length
        self._draw: Callable[[int], Any] = lambda _: None  # of the pass that began last
        self._to_skip = 0
        self._following: Any = None  # the batch that was drawn ahead to find the last one

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[SeededIndices]:
        key, self.last_number = batch_key(self.sampler), -1
        rng = ScopedRng(RNGS)  # no probe: a sampler may draw late in the pass for the first time
        batches = rng.run(derive_seed("order", *key), iter, self._wrapped)
        # every rank loads the position of rank 0, whose batches are others
        expected, keeps = None if self.sampler.rank else self.expected, bool(self.sampler.generators)
        self.drawn = drawn = Drawn(type(self._wrapped).__name__, expected, keeps_generator=keeps)

        def draw(batch: int) -> Any:
            indices = rng.run(derive_seed("order", *key, batch), lambda each: next(each, None), batches)
            if indices is not None:
                drawn.add(indices, batches)
            return indices

        self._draw = draw
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
