"""Training batches whose order and random changes are functions of their place in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from fulgurite.core.errors import UserError
from fulgurite.exact_resume.rng import ScopedRng, derive_seed, seed_all
from fulgurite.exact_resume.sharding import BatchSharding

Keyed = tuple[int, list[int]]  # the seed of a batch and its indices


@dataclass(frozen=True)
class ShardSpec:
    """Whose share of each epoch a loader hands out, and what it is made with.

    Attributes:
        seed: Of order and random changes.
        on_start: Called before the first batch of each epoch is made.
        lending: Lends generators to batches that are made in the training process.
        rank: Of this process among those that share each epoch.
        ranks: How many share it.
    """

    seed: int
    on_start: Callable[[], None]
    lending: ScopedRng = field(default_factory=ScopedRng)
    rank: int = 0
    ranks: int = 1


# Samplers whose whole order comes from one generator, or from none.
SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class EpochSampler(DistributedSampler[int]):
    """The order of a sampler, drawn anew for each epoch as a function of seed and epoch, and one rank's share of it.

    The order is that of the whole data set, whatever the number of ranks. Lightning leaves the loader alone because
    this is a DistributedSampler.

    Args:
        sampler: One of `SAMPLERS`; of another one the order is taken as it comes.
        seed: Another seed is another order; a generator that the sampler has of its own adds its seed.
        sharing: Which of it is this rank's.
    """

    def __init__(self, sampler: Any, seed: int, sharing: BatchSharding) -> None:
        super().__init__(sampler, num_replicas=sharing.ranks, rank=sharing.rank)
        own = getattr(sampler, "generator", None)
        self.sampler = copy(sampler)  # gets a generator of each epoch; the one given may be used again
        self.seed = seed if own is None else derive_seed(seed, own.initial_seed())
        self.sharing = sharing

    def whole(self) -> list[int]:
        """Return the epoch's order, of all ranks together."""
        if not isinstance(self.sampler, SequentialSampler):
            self.sampler.generator = torch.Generator().manual_seed(derive_seed("order", self.seed, self.epoch))
        return list(self.sampler)

    def __len__(self) -> int:
        last = self.sharing.batches - 1  # all before it are full
        if last < 0:
            return 0
        return last * self.sharing.batch_size + len(self.sharing.part(range(self.sharing.examples), last))

    def __iter__(self) -> Iterator[int]:
        order = self.whole()
        return iter([index for batch in range(self.sharing.batches) for index in self.sharing.part(order, batch)])


class SeededBatchSampler(Sampler[Any]):
    """Batches of indices, each with the seed of its random changes.

    Args:
        sampler: The order, and how it is shared.
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.sharing = sampler.sharing
        self.first = 0  # batches that are skipped

    def __len__(self) -> int:
        return self.sharing.batches

    def __iter__(self) -> Iterator[Keyed]:
        order, place = self.sampler.whole(), (self.sampler.seed, self.sampler.epoch, self.sampler.rank)
        for batch in range(self.first, len(self)):
            yield derive_seed("batch", *place, batch), self.sharing.part(order, batch)


class SeededDataset(Dataset[Any]):
    """A data set that makes a whole batch, collated, on generators seeded for it. All else is the wrapped data set's.

    Args:
        dataset: The data set; `__getitems__` is used where it has one.
        collate: Makes a batch of what the data set gives.
        lending: Where batches are made in the training process.
    """

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], lending: ScopedRng) -> None:
        self._wrapped = dataset
        self._collate = collate
        self._lending = lending

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what pickle asks for before there is a data set to ask
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __len__(self) -> int:
        return len(self._wrapped)

    def __getitem__(self, index: Any) -> Any:
        return self._wrapped[index]

    def __getitems__(self, keyed: Keyed) -> Any:
        """Return the collated batch of `(seed, indices)`."""
        seed, indices = keyed
        if get_worker_info() is None:
            return self._lending.run(seed, self._make, indices)
        seed_all(seed)
        return self._make(indices)

    def _make(self, indices: Sequence[int]) -> Any:
        if hasattr(self._wrapped, "__getitems__"):
            return self._collate(self._wrapped.__getitems__(indices))
        return self._collate([self._wrapped[index] for index in indices])


def _as_is(batch: Any) -> Any:
    return batch


class ExactLoader(DataLoader[Any]):
    """The batches of a standard DataLoader in an order that is a function of seed and epoch, able to go on amid one.

    Nothing happens before the first batch is asked for: by then the epoch is set and a resumed run is restored.

    Args:
        loader: The loader whose data set, sampler and settings are taken.
        share: Whose batches they are.
    """

    def __init__(self, loader: DataLoader[Any], share: ShardSpec) -> None:
        sharing = BatchSharding(
            len(cast("Sized", loader.sampler)),
            int(loader.batch_size or 1),
            share.rank,
            share.ranks,
            drop_last=loader.drop_last,
        )
        order = EpochSampler(loader.sampler, share.seed, sharing)
        self.batches = SeededBatchSampler(order)
        super().__init__(
            SeededDataset(loader.dataset, loader.collate_fn, share.lending),
            batch_sampler=self.batches,
            collate_fn=_as_is,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator(),  # what a loader draws for itself must not move the global generator
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        vars(self)["sampler"] = order  # where Lightning looks; set behind the back of a loader that would refuse it
        self.order = order
        self._on_start = share.on_start
        self._epoch, self._handed_out = 0, 0
        self._restored = (0, 0)  # epoch, batches handed out in it

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._on_start()
        order, (epoch, batches) = self.order, self._restored
        self._epoch = order.epoch
        self.batches.first = self._handed_out = batches if epoch == order.epoch else 0
        self._restored = (0, 0)
        self.generator.manual_seed(derive_seed("workers", order.seed, order.epoch))
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return where in the run the loader stands, and what that is counted in."""
        return {**self._counted_in(), "epoch": self._epoch, "batches": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            UserError: The batches are others than those that were counted.
        """
        for name, here in self._counted_in().items():
            if state[name] != here:
                raise UserError(
                    f"ckpt_path: was saved amid an epoch, {name.replace('_', ' ')} {state[name]}, here is {here}: "
                    "the rest of the epoch is not known; give the same value, or resilience.exact_resume=false"
                )
        self._restored = (state["epoch"], state["batches"])

    def _counted_in(self) -> dict[str, int]:
        order = self.order
        return {
            "seed": order.seed,
            "processes": order.num_replicas,
            "examples": order.num_samples,  # of the largest share: the state of rank 0 is given to every rank
            "batch_size": order.sharing.batch_size,
        }


def make_exact(loaders: Any, share: ShardSpec) -> tuple[Any, list[str]]:
    """Return the loaders made exact, and why some were left as they are.

    Args:
        loaders: A DataLoader, or a dictionary, list or tuple of them.
        share: Whose batches they are.
    """
    if isinstance(loaders, dict):
        parts = {name: make_exact(part, share) for name, part in loaders.items()}
        return {name: part for name, (part, _) in parts.items()}, [why for _, found in parts.values() for why in found]
    if isinstance(loaders, (list, tuple)):
        made = [make_exact(part, share) for part in loaders]
        return type(loaders)([part for part, _ in made]), [why for _, found in made for why in found]
    if why := _why_not(loaders):
        return loaders, [why]
    return ExactLoader(loaders, share), []


def _why_not(loader: Any) -> str:
    """Return what keeps a loader from being made exact, or an empty string."""
    if type(loader) is not DataLoader:
        return f"{type(loader).__name__} is not a plain DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable data set has an order of its own"
    if type(loader.batch_sampler) is not BatchSampler:
        return "the loader has a batch sampler of its own, or none"
    if type(loader.sampler) not in SAMPLERS:
        return f"the order of a {type(loader.sampler).__name__} is not known"
    return ""
