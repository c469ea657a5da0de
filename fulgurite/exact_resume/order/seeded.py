"""Make each batch on generators that are seeded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from fulgurite.exact_resume.order.generators import find_generators, seed_generator
from fulgurite.exact_resume.order.rng import ScopedRng, derive_seed, seed_all

# what the seed of a batch is derived from, and its indices, or its index where the loader does not batch
SeededIndices = tuple[tuple[int | str, ...], Any]


class StandIn:
    """An object in place of a user's: reads and writes of other attributes reach the user's, and so does isinstance."""

    OWN: frozenset[str] = frozenset()  # attributes of the stand-in itself
    _wrapped: Any

    @property  # type: ignore[misc]  # as mocks do
    def __class__(self) -> Any:
        """The class of the user's data set or sampler, which user code may ask for."""
        wrapped = vars(self).get("_wrapped")
        return type(wrapped) if isinstance(wrapped, (Dataset, Sampler)) else type(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return what pickle and copy make the stand-in of: they refuse an object that says it has another class."""
        return _make_bare, (type(self),), dict(vars(self))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_wrapped" not in vars(self):  # pickle looks these up before `_wrapped` exists
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or name == "_wrapped" or name in self.OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._wrapped, name, value)


def _make_bare(kind: Any) -> Any:
    """Return an object of a class without attributes."""
    return kind.__new__(kind)


class SeededDataset(StandIn, Dataset[Any]):
    """A data set that makes a collated batch on RNGs seeded for it.

    Args:
        dataset: The user's data set.
        collate: Makes a batch of a list of examples, or of one where the loader does not batch.
        rng: RNGs of batches that are made in the training process.
        batched: Whether a request holds several indices.
        collates: Whether it collates; False: the loader does, with the function that it has by then.
        watch: Called before the first batch of a worker and after each.
    """

    OWN = frozenset({"_collate", "_rng", "_batched", "_collates", "_watch", "_is_in_worker", "_generators"})

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Any], Any],
        rng: ScopedRng,
        *,
        batched: bool = True,
        collates: bool = True,
        watch: Any = None,
    ) -> None:
        self._wrapped = dataset
        self._collate = collate
        self._rng = rng
        self._batched = batched
        self._collates = collates
        self._watch = watch
        self._is_in_worker = False
        self._generators: list[Any] = []
        self.find_generators(collate)

    def find_generators(self, collate: Callable[[Any], Any]) -> None:
        """Collate with a function, and find the generators that it and the data set reach by now."""
        self._collate = collate
        self._generators = find_generators(self._wrapped, collate)

    def collates_with(self, function: Any) -> bool:
        """Return whether batches are collated with a function."""
        return self._collate is function

    def __len__(self) -> int:
        return len(self._wrapped)

    def __getitem__(self, index: Any) -> Any:
        return self._wrapped[index]

    def __getitems__(self, seeded: SeededIndices) -> Any:
        """Return the batch of `(parts of its seed, indices)`."""
        parts, indices = seeded
        is_in_worker = get_worker_info() is not None
        if is_in_worker and not self._is_in_worker:
            self._start_worker()
        if not is_in_worker and not self._generators and self._rng.is_idle():
            return self._make(indices)  # nothing draws, so the seed is not derived
        seed = derive_seed(*parts)
        for number, generator in enumerate(self._generators):
            seed_generator(generator, derive_seed("own", seed, number))
        if not is_in_worker:
            return self._rng.run(seed, self._make, indices)
        seed_all(seed)
        batch = self._make(indices)
        if self._watch is not None:
            self._watch.after_batch()
        return batch

    def _start_worker(self) -> None:
        """Find the generators that `worker_init_fn` made, and the objects of a worker that was not forked."""
        self._is_in_worker = True
        self.find_generators(self._collate)
        if self._watch is not None:
            self._watch.before_batch(self._generators)

    def _make(self, indices: Any) -> Any:
        examples = self._examples(indices)
        return self._collate(examples) if self._collates else examples

    def _examples(self, indices: Any) -> Any:
        if not self._batched:
            return self._wrapped[indices]
        if hasattr(self._wrapped, "__getitems__"):
            return self._wrapped.__getitems__(indices)
        return [self._wrapped[index] for index in indices]


class PassSeededBatches(StandIn, Sampler[Any]):
    """A user's batches of indices, each with a seed that is a function of the pass."""

    OWN = frozenset({"_pass_seed"})

    def __init__(self, batches: Any, pass_seed: Callable[[], int]) -> None:
        self._wrapped = batches
        self._pass_seed = pass_seed

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[SeededIndices]:
        seed = self._pass_seed()
        for number, indices in enumerate(self._wrapped):
            yield ("batch", seed, number), indices


def identity_collate(batch: Any) -> Any:
    """Return a batch that `SeededDataset` has collated."""
    return batch


def seed_passes(loader: Any, pass_seed: Callable[[], int], watch: Any = None) -> None:
    """Seed each batch of an evaluation loader, in place, where its generators would not be those of a resumed run.

    Those of the training process are saved with the run, so a loader without workers is left as it is unless its data
    set keeps generators of its own. Where there are several processes, the loader shards its data already.
    """
    own = vars(loader)
    if isinstance(batches := loader.batch_sampler, PassSeededBatches):
        batches._pass_seed = pass_seed  # an earlier trainer used this loader
    if isinstance(loader.dataset, (IterableDataset, SeededDataset)):
        return
    if not loader.num_workers and not find_generators(loader.dataset, loader.collate_fn):
        return
    batched = loader.batch_sampler is not None
    # DataLoader refuses to set these
    seeded = SeededDataset(loader.dataset, loader.collate_fn, ScopedRng(), batched=batched, collates=False, watch=watch)
    own["dataset"] = seeded
    own["watch"] = watch
    own["batch_sampler"] = PassSeededBatches(loader.batch_sampler if batched else loader.sampler, pass_seed)
