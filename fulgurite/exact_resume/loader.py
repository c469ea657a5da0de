"""Make the data order and augmentation a function of seed, epoch and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from fulgurite.compat.lightning import mark_exhausted
from fulgurite.core.context import setting
from fulgurite.core.errors import UserError
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.loader_states import LoaderStates
from fulgurite.exact_resume.order.choice import make_order
from fulgurite.exact_resume.order.epoch import EpochSampler
from fulgurite.exact_resume.order.generators import draw_aside
from fulgurite.exact_resume.order.own import FoundGenerators, OwnOrder
from fulgurite.exact_resume.order.passes import Pass, Progress
from fulgurite.exact_resume.order.rng import ScopedRng, derive_seed
from fulgurite.exact_resume.order.seeded import SeededDataset, identity_collate
from fulgurite.exact_resume.streams.cursor import StreamSpec
from fulgurite.exact_resume.workers.worker_copies import make_watch


@dataclass(frozen=True)
class ShardSpec:
    """The shard of each epoch that a loader yields."""

    seed: int  # of data order and augmentation
    on_start: Callable[[], bool]  # called before the first batch of each epoch is made; False: yield nothing yet
    rng: ScopedRng = field(default_factory=ScopedRng)  # of batches that are made in the training process
    shard: tuple[int, int] | None = None  # (number, of how many); None: Lightning sets no distributed sampler
    streams: StreamSpec | None = None  # None leaves loaders with an order of their own as they are
    process: int = 0  # rank of the process where the data module shards the data itself
    place: tuple[str | int, ...] = ()  # keys and indices of the loader among several
    generators: FoundGenerators = field(default_factory=dict)
    states: LoaderStates | None = None  # None: samplers keep nothing
    epoch: Callable[[], tuple[int, int]] | None = None  # the epoch, and how many started; None: `order.set_epoch`
    on_last: Callable[[], None] = lambda: None  # called with the last batch of a loader without a length
    is_trained: Callable[[Any, Any], bool] = lambda *_: True  # whether the training reads a loader's iterator
    on_read: Callable[[], None] = lambda: None  # called before user code reads a first batch

    @property
    def loader_seed(self) -> int:
        """Seed of one loader: that of the run, or one of its place among several loaders."""
        return derive_seed("loader", self.seed, *map(repr, self.place)) if self.place else self.seed


# what a position amid an epoch depends on, by its key in checkpoints, as messages name it
SETTING_NAMES = {
    "seed": "seed",
    "processes": "trainer.devices",
    "examples": "examples of the data set",
    "batch_size": "data.batch_size",
}


class ExactLoader(DataLoader[Any]):
    """A DataLoader whose order is a function of seed and epoch, and which can resume amid an epoch.

    It does nothing before the first batch is requested: by then the epoch is set and a resumed run is restored.
    `dataset`, `collate_fn`, `batch_sampler` and, in one process, `sampler` are the user's own objects: writes to them
    have an effect.
    """

    def __init__(self, loader: DataLoader[Any], spec: ShardSpec) -> None:
        self._wrapped = loader
        seeds = spec.loader_seed, spec.seed
        self.order, self.batches = make_order(loader, *seeds, spec.shard, spec.process, spec.generators)
        super().__init__(
            loader.dataset,
            batch_sampler=cast("Any", self.batches),
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator(),  # otherwise DataLoader draws from the global one
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        # Lightning replaces any other sampler under a distributed strategy; DataLoader refuses to set it
        vars(self)["sampler"] = loader.sampler if spec.shard is None else self.order
        # DataLoader has none of a loader with a batch sampler
        vars(self).update({name: getattr(loader, name) for name in ("batch_sampler", "batch_size", "drop_last")})
        batched = loader.batch_sampler is not None
        self.watch = make_watch(loader)
        self._seeded = SeededDataset(loader.dataset, loader.collate_fn, spec.rng, batched=batched, watch=self.watch)
        self._spec = spec
        self._started = (-1, 0)  # the epoch that the order has, and its number
        self._progress = Progress()  # of the pass that the training reads
        self._restored: dict[str, Any] = {}
        self._settings = self._find_settings()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._wrapped, name)  # what a subclass of DataLoader adds

    @property
    def _auto_collation(self) -> bool:
        """Fetch batches; the batches of DataLoader are those of `batch_sampler`."""
        return True

    @property
    def _index_sampler(self) -> Any:
        return self.batches

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        is_trained = self._spec.is_trained
        return Pass(lambda each: self._yield_batches(is_trained=True) if is_trained(self, each) else self.look())

    def _yield_batches(self, *, is_trained: bool) -> Iterator[Any]:
        """Yield the batches of a pass of the training, which may resume, or of user code that looks at the data."""
        if not is_trained:
            self._spec.on_read()
        elif not self._spec.on_start():
            return
        self._set_epoch()
        order, saved, progress = self.order, dict[str, Any](), Progress()
        own = vars(self)  # DataLoader checks attributes that are set
        if is_trained:
            saved, own["_restored"], own["_progress"] = self._restored, {}, progress
        num_yielded = self._enter_pass(saved)
        self.generator.manual_seed(derive_seed("workers", order.seed, order.epoch))
        self._take_collate_fn()
        epoch, current = order.epoch, order.current_pass
        progress.position = (epoch, current, num_yielded)
        batches = self._resume(saved, progress) if num_yielded else self._start(progress, is_trained=is_trained)
        for number, batch in enumerate(batches, num_yielded + 1):
            progress.move((epoch, current, number))
            if is_trained and number == self.batches.last_number:
                self._spec.on_last()
            yield batch
        progress.position = (epoch, current + 1, 0)

    def look(self) -> Iterator[Any]:
        """Return the batches of a pass that user code reads on the side."""
        own = self.order.generators if isinstance(self.order, OwnOrder) else []
        return draw_aside(own, self._yield_batches(is_trained=False))

    def _set_epoch(self) -> None:
        """Give the order the epoch that the training began last."""
        if self._spec.epoch is not None and (started := self._spec.epoch()) != self._started:
            self._started = started
            self.order.set_epoch(started[0])

    def _enter_pass(self, saved: dict[str, Any]) -> int:
        """Begin the next pass or that of a saved position; return its batches that the run trained on."""
        order = self.order
        is_resumed = bool(saved) and saved["epoch"] == order.epoch
        if saved and not is_resumed:
            order.set_epoch(order.epoch)  # the samplers were restored after Lightning had set it
        if is_resumed and saved["pass"] and self._spec.streams is not None:
            mark_exhausted(self._spec.streams.trainer, self)
        order.current_pass = saved["pass"] if is_resumed else order.passes
        # user code may have begun passes since
        order.passes = max(order.current_pass + 1, saved.get("passes", 0) if is_resumed else 0)
        return saved["batches"] if is_resumed else 0

    def _take_collate_fn(self) -> None:
        """Collate with the function that the loader has now; persistent workers keep the one that they have."""
        if not (self.persistent_workers and vars(self)["_iterator"] is not None):
            self._seeded.find_generators(self.collate_fn)
        elif not self._seeded.collates_with(self.collate_fn):
            name_inexact(
                "collate_fn of the training loader",
                "it was replaced, and persistent workers keep the former one, until a resume makes new workers. "
                "Set persistent_workers=False.",
            )

    def _start(self, progress: Progress, *, is_trained: bool) -> Iterator[Any]:
        """Return the batches of a pass that begins."""
        if is_trained and self._spec.states is not None:
            progress.at_start = self._spec.states.at_start(self)
        self.order.start_pass()
        self.batches.num_skipped, self.batches.expected = 0, None
        batches, progress.drawn = self._fetch(), self.batches.drawn
        return batches

    def _resume(self, saved: dict[str, Any], progress: Progress) -> Iterator[Any]:
        """Return the batches of an interrupted pass that the run did not train on."""
        progress.at_start = saved.get("at_start", {})
        if (states := self._spec.states) is not None:
            states.enter(self, progress.at_start)
        self._take_collate_fn()
        self.order.start_pass(saved.get("source_length"))
        self.batches.num_skipped, self.batches.expected = saved["batches"], saved.get("drawn")
        batches, progress.drawn = self._fetch(), self.batches.drawn
        self.batches.skip()
        # what was fetched ahead changed the samplers and the data set before they were saved
        ahead = list(islice(batches, saved.get("ahead", 0)))
        if states is not None:
            states.settle(self)
        return chain(ahead, batches)

    def start_epoch(self) -> None:
        """Begin the epoch's first pass again, whatever was read of it."""
        self.order.passes, self._restored = 0, {}

    def _fetch(self) -> Iterator[Any]:
        """Return an iterator that fetches seeded batches; it keeps what the loader has while it is made."""
        own = vars(self)
        if self.watch is not None and self.persistent_workers and own["_iterator"] is None:
            self.watch.start_persistent()
        users = {"dataset": self.dataset, "collate_fn": self.collate_fn}
        own.update(dataset=self._seeded, collate_fn=identity_collate)
        try:
            return super().__iter__()
        finally:
            own.update(users)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the run, the settings that it depends on and what the user's samplers keep."""
        ahead = 0 if self._spec.states is None else self._spec.states.num_ahead()
        state = {**self._settings, **self._progress.state_dict(ahead), "passes": self.order.passes}
        if isinstance(self.order, EpochSampler) and self.order.source_length is not None:
            state["source_length"] = self.order.source_length
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of `state_dict`."""
        for name, value in self._settings.items():
            if (saved := state.get(name, value)) != value:
                subject = setting(SETTING_NAMES[name], SETTING_NAMES[name].removeprefix("data."))
                off = setting("resilience.exact_resume=false", "harden(exact_resume=False)")
                raise UserError(
                    f"{subject}={value}: the checkpoint was saved amid an epoch with {saved}. "
                    f"Pass {saved}, or set {off}."
                )
        self._restored = {"pass": 0, **state}

    def _find_settings(self) -> dict[str, int]:
        """Return what a position depends on; the length is that of the data set when the loader was made."""
        order = self.order
        if isinstance(order, OwnOrder):
            sized, streams = isinstance(self.dataset, Sized), self._spec.streams
            return {
                "seed": order.seed,
                "processes": 1 if streams is None else streams.trainer.world_size,
                "examples": len(cast("Sized", self.dataset)) if sized else 0,
            }
        return {
            "seed": order.seed,
            "processes": order.num_replicas,
            "examples": order.num_samples,  # of the largest shard: every rank loads the state of rank 0
            "batch_size": order.sharding.batch_size,
        }
