"""Make the data order and augmentation a function of seed, epoch and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from lightning.pytorch.utilities import CombinedLoader
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
from fulgurite.exact_resume.stream_cursor import StreamSpec
from fulgurite.exact_resume.streams import follow

SeededIndices = tuple[int, list[int]]  # seed and indices of a batch


@dataclass(frozen=True)
class ShardSpec:
    """The shard of each epoch that a loader yields."""

    seed: int  # of data order and augmentation
    on_start: Callable[[], bool]  # called before the first batch of each epoch is made; False: yield nothing yet
    rng: ScopedRng = field(default_factory=ScopedRng)  # of batches that are made in the training process
    rank: int = 0
    world_size: int = 1
    streams: StreamSpec | None = None  # None leaves loaders with an order of their own as they are


# Samplers whose order comes from at most one generator.
SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class EpochSampler(DistributedSampler[int]):
    """One rank's shard of an epoch's order, which is a function of seed and epoch.

    The order is that of the full data set for any world size. Lightning does not replace a DistributedSampler.

    Args:
        sampler: One of `SAMPLERS`; any other sampler is iterated as it is.
        seed: Seed of the order. The seed of the sampler's own generator is mixed in.
        sharding: Assigns examples to ranks.
    """

    def __init__(self, sampler: Any, seed: int, sharding: BatchSharding) -> None:
        super().__init__(sampler, num_replicas=sharding.world_size, rank=sharding.rank)
        own = getattr(sampler, "generator", None)
        self.sampler = copy(sampler)  # its generator is replaced every epoch; the original may be used again
        self.seed = seed if own is None else derive_seed(seed, own.initial_seed())
        self.sharding = sharding

    def epoch_order(self) -> list[int]:
        """Return the order of the epoch over all ranks."""
        if not isinstance(self.sampler, SequentialSampler):
            self.sampler.generator = torch.Generator().manual_seed(derive_seed("order", self.seed, self.epoch))
        return list(self.sampler)

    def __len__(self) -> int:
        sharding, last = self.sharding, self.sharding.num_batches - 1  # all before it are full
        return 0 if last < 0 else last * sharding.batch_size + len(sharding.shard(range(sharding.num_examples), last))

    def __iter__(self) -> Iterator[int]:
        order, sharding = self.epoch_order(), self.sharding
        return iter([index for batch in range(sharding.num_batches) for index in sharding.shard(order, batch)])


class SeededBatchSampler(Sampler[Any]):
    """Batches of indices, each with the seed of its augmentation."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.sharding = sampler.sharding
        self.num_skipped = 0  # batches that the run trained on before it was resumed

    def __len__(self) -> int:
        return self.sharding.num_batches

    def __iter__(self) -> Iterator[SeededIndices]:
        order, key = self.sampler.epoch_order(), (self.sampler.seed, self.sampler.epoch, self.sampler.rank)
        for batch in range(self.num_skipped, len(self)):
            yield derive_seed("batch", *key, batch), self.sharding.shard(order, batch)


class SeededDataset(Dataset[Any]):
    """A data set that makes a collated batch on RNGs seeded for it; other attributes are those of the wrapped one."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], rng: ScopedRng) -> None:
        self._wrapped = dataset
        self._collate = collate
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle looks these up before `_wrapped` exists
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __len__(self) -> int:
        return len(self._wrapped)

    def __getitem__(self, index: Any) -> Any:
        return self._wrapped[index]

    def __getitems__(self, seeded: SeededIndices) -> Any:
        """Return the collated batch of `(seed, indices)`."""
        seed, indices = seeded
        if get_worker_info() is None:
            return self._rng.run(seed, self._make, indices)
        seed_all(seed)
        return self._make(indices)

    def _make(self, indices: Sequence[int]) -> Any:
        if hasattr(self._wrapped, "__getitems__"):
            return self._collate(self._wrapped.__getitems__(indices))
        return self._collate([self._wrapped[index] for index in indices])


def _identity_collate(batch: Any) -> Any:
    return batch


class ExactLoader(DataLoader[Any]):
    """A DataLoader whose order is a function of seed and epoch, and which can resume amid an epoch.

    It does nothing before the first batch is requested: by then the epoch is set and a resumed run is restored.
    """

    def __init__(self, loader: DataLoader[Any], spec: ShardSpec) -> None:
        sharding = BatchSharding(
            len(cast("Sized", loader.sampler)),
            int(loader.batch_size or 1),
            spec.rank,
            spec.world_size,
            drop_last=loader.drop_last,
        )
        order = EpochSampler(loader.sampler, spec.seed, sharding)
        self.batches = SeededBatchSampler(order)
        super().__init__(
            SeededDataset(loader.dataset, loader.collate_fn, spec.rng),
            batch_sampler=self.batches,
            collate_fn=_identity_collate,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator(),  # otherwise DataLoader draws from the global one
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        vars(self)["sampler"] = order  # for Lightning; DataLoader refuses to set it
        self.order = order
        self._on_start = spec.on_start
        self._epoch, self._num_yielded = 0, 0
        self._restored = (0, 0)  # epoch, batches yielded in it

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not self._on_start():
            return
        order, (epoch, batches) = self.order, self._restored
        self._epoch = order.epoch
        self.batches.num_skipped = self._num_yielded = batches if epoch == order.epoch else 0
        self._restored = (0, 0)
        self.generator.manual_seed(derive_seed("workers", order.seed, order.epoch))
        for batch in super().__iter__():
            self._num_yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the run and the settings that it depends on."""
        return {**self._settings(), "epoch": self._epoch, "batches": self._num_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at the position of `state_dict`."""
        for name, value in self._settings().items():
            if state[name] != value:
                raise UserError(
                    f"ckpt_path: was saved amid an epoch with {name.replace('_', ' ')} {state[name]}, now {value}. "
                    "Pass the same value, or set resilience.exact_resume=false."
                )
        self._restored = (state["epoch"], state["batches"])

    def _settings(self) -> dict[str, int]:
        order = self.order
        return {
            "seed": order.seed,
            "processes": order.num_replicas,
            "examples": order.num_samples,  # of the largest shard: every rank loads the state of rank 0
            "batch_size": order.sharding.batch_size,
        }


def make_exact(loaders: Any, spec: ShardSpec) -> tuple[Any, list[str]]:
    """Return exact loaders, and the reason for each loader that stays as it is."""
    if isinstance(loaders, dict):
        exact, reasons = make_exact(list(loaders.values()), spec)
        return dict(zip(loaders, exact, strict=True)), reasons
    if isinstance(loaders, (list, tuple)):
        made = [make_exact(part, spec) for part in loaders]
        return type(loaders)([part for part, _ in made]), [reason for _, found in made for reason in found]
    if isinstance(loaders, CombinedLoader):
        loaders.flattened, reasons = make_exact(loaders.flattened, spec)
        return loaders, reasons
    if reason := _unsupported_reason(loaders):
        return loaders, [] if spec.streams is not None and follow(loaders, spec.streams) else [reason]
    return ExactLoader(loaders, spec), []


def _unsupported_reason(loader: Any) -> str:
    """Return why a loader cannot be made exact, or an empty string."""
    if type(loader) is not DataLoader:
        return f"{type(loader).__name__} is not a plain DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable data set defines its own order"
    if type(loader.batch_sampler) is not BatchSampler:
        return "the loader has a custom batch sampler, or none"
    if type(loader.sampler) not in SAMPLERS:
        return f"the order of a {type(loader.sampler).__name__} is unknown"
    return ""
