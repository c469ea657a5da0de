"""Where a loader that defines its own order is, and how a resumed run gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from fulgurite.compat.lightning import mark_exhausted
from fulgurite.core.context import setting
from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.exact_resume.order.rng import RNGS, ScopedRng, derive_seed

log = RankedLogger(__name__)

StreamResume = Literal["skip", "restart"]


def restart_setting() -> str:
    """Return how the user lets streams start over."""
    return setting("resilience.stream_resume=restart", "harden(stream_resume='restart')")


@dataclass
class StreamSpec:
    """What the streams of a run have in common."""

    trainer: Trainer
    seed: int  # of data order and augmentation
    on_start: Callable[[], bool]  # called before the first batch of each pass; False: yield nothing yet
    resume: StreamResume = "skip"
    is_trained: Callable[[Any], bool] = lambda _: True  # whether the training reads an iterator


@dataclass
class Snapshot:
    """The state of a stream after some batches of a pass."""

    batches: int
    state: Any
    generators: list[torch.Tensor]  # states of the generators passed to the loader


@dataclass
class StreamCursor:
    """The position of a loader that defines its own order.

    All randomness of a batch that is made in the training process is a function of seed, epoch, pass and batch, equal
    on all ranks: streams that shuffle and then take every n-th example need that.
    """

    loader: Any
    spec: StreamSpec
    place: str  # among the loaders of a step
    iterate: Callable[[Any], Iterator[Any]]  # the loader's own `__iter__`
    source: Any  # the object with state_dict and load_state_dict, None if the stream has no state
    epoch: int = -1
    num_pass: int = 0  # a short loader passes several times through its data in an epoch of a long one
    pulled: int = 0  # batches of this pass
    exhausted: bool = False
    snapshots: list[Snapshot] = field(default_factory=list)  # of this pass, at most two
    next_snapshot: int = -1  # batches at which a resumed run takes the snapshot that the interrupted one took
    saved: dict[str, Any] | None = None  # what a resumed run loaded, until the first pass
    rng: ScopedRng = field(default_factory=lambda: ScopedRng(scoped=RNGS))

    def batches(self) -> Iterator[Any]:
        """Yield the batches of a pass, after those that the run trained on before it was resumed."""
        if not self.spec.on_start():
            return
        saved, self.saved, epoch = self.saved, None, self.spec.trainer.current_epoch
        if saved is None:
            self._enter(epoch, self.num_pass + 1 if self.exhausted and epoch == self.epoch else 0)
            yield from self._pull(self._start())
        elif self.source is not None and saved["snapshot"] is not None:
            yield from self._resume_by_state(saved, epoch)
        else:
            yield from self._resume_by_reading(saved, epoch)

    def look(self) -> Iterator[Any]:
        """Return the batches of a pass that user code reads on the side, which leaves the position as it is."""
        if self.source is not None and self.epoch >= 0:
            name_inexact(
                self.name,
                "code reads it beside the training, which moves the position that state_dict() returns. Read another "
                "loader: trainer.datamodule.train_dataloader().",
            )
        # of an ExactLoader beside a stream
        look: Any = getattr(self.loader, "look", partial(self.iterate, self.loader))
        return look()  # type: ignore[no-any-return]

    def _enter(self, epoch: int, num_pass: int) -> None:
        self.epoch, self.num_pass, self.pulled, self.exhausted = epoch, num_pass, 0, False
        self.snapshots, self.next_snapshot = [], -1

    def _start(self) -> Iterator[Any]:
        """Return a new iterator of the loader, and keep the state that it starts with."""
        if self.source is None:
            for generator in self.generators():
                generator.manual_seed(self._seed_of("generator"))
        iterator = self.rng.run(self._seed_of("start"), self.iterate, self.loader)
        self._take_snapshot()
        return iterator

    def _pull(self, iterator: Iterator[Any], stop: int | None = None) -> Iterator[Any]:
        """Yield the batches up to number `stop`, each made on RNGs seeded for it."""
        while stop is None or self.pulled < stop:
            try:
                batch = self.rng.run(self._seed_of(self.pulled), next, iterator)
            except StopIteration:
                self.exhausted, self.snapshots = True, []  # the next is that of the ended pass
                return
            self.pulled += 1
            if self.pulled == self.next_snapshot:
                self._take_snapshot()
            yield batch

    def _resume_by_state(self, saved: dict[str, Any], epoch: int) -> Iterator[Any]:
        self._enter(saved["epoch"], saved["pass"])
        snapshot = Snapshot(**saved["snapshot"])
        self.source.load_state_dict(snapshot.state)
        iterator = iter(()) if saved["exhausted"] else self._start()
        for generator, state in zip(self.generators(), snapshot.generators, strict=False):
            generator.set_state(state)
        self.pulled, self.exhausted, self.snapshots = snapshot.batches, saved["exhausted"], [snapshot]
        if not self.exhausted:
            log.info("%s: reading %d batches to its position", self.name, saved["batches"] - snapshot.batches)
            self.next_snapshot = saved["pulled"]
            self._read_past(iterator, saved["batches"])
        if epoch == self.epoch:
            self._mark_passed()
        else:
            self._enter(epoch, 0)
            if callable(start_epoch := getattr(self.loader, "start_epoch", None)):
                start_epoch()  # an ExactLoader counts passes itself
            iterator = self._start()
        yield from self._pull(iterator)

    def _resume_by_reading(self, saved: dict[str, Any], epoch: int) -> Iterator[Any]:
        is_amid = epoch == saved["epoch"]
        if is_amid and saved["exhausted"]:
            self._enter(epoch, saved["pass"])
            self.exhausted = True
            return
        self._enter(epoch, saved["pass"] if is_amid else 0)
        iterator = self._start()
        if is_amid:
            self._mark_passed()
        if is_amid and saved["batches"]:
            name, batches = self.name, saved["batches"]
            if self.spec.resume == "skip":
                log.warning("%s has no state_dict(): reading past %d batches of this epoch", name, batches)
                self._read_past(iterator, batches)
            else:
                log.warning("%s starts over after %d batches of an epoch (%s)", name, batches, restart_setting())
        yield from self._pull(iterator)

    def _read_past(self, iterator: Iterator[Any], stop: int) -> None:
        for _ in self._pull(iterator, stop):
            pass

    def _seed_of(self, part: int | str) -> int:
        return derive_seed("stream", self.spec.seed, self.place, self.epoch, self.num_pass, part)

    def _mark_passed(self) -> None:
        if self.num_pass:
            mark_exhausted(self.spec.trainer, self.loader)

    @property
    def name(self) -> str:
        """The class that defines the order."""
        dataset = getattr(self.loader, "dataset", None)
        return type(dataset if isinstance(dataset, IterableDataset) else self.loader).__name__

    def generators(self) -> list[torch.Generator]:
        """Return the generators that the loader passes to its sampler and workers."""
        if not isinstance(self.loader, DataLoader):
            return []
        found = [self.loader.generator, getattr(self.loader.sampler, "generator", None)]
        return [generator for generator in found if isinstance(generator, torch.Generator)]

    # state

    def _take_snapshot(self) -> None:
        if self.source is not None:
            states = [generator.get_state() for generator in self.generators()]
            self.snapshots.append(Snapshot(self.pulled, self.source.state_dict(), states))

    def state(self, num_prefetched: int) -> dict[str, Any]:
        """Return the position of the run, which is some prefetched batches behind that of the stream.

        A state can be read at the stream's position only, and what a new iterator draws at its first batch differs
        amid a pass. So the state is read once a save, for the next one; a resumed run reads the batches between again.
        """
        batches = self.pulled if self.exhausted else self.pulled - num_prefetched
        if not self.snapshots or self.snapshots[-1].batches < self.pulled:
            self._take_snapshot()
        is_usable = [snapshot.batches < max(batches, 1) or self.exhausted for snapshot in self.snapshots]
        usable = [snapshot for snapshot, is_it in zip(self.snapshots, is_usable, strict=True) if is_it]
        self.snapshots = self.snapshots[max(len(usable) - 1, 0) :]
        return {
            "epoch": self.epoch,
            "pass": self.num_pass,
            "batches": batches,
            "pulled": self.pulled,
            "exhausted": self.exhausted,
            "snapshot": dict(vars(usable[-1])) if usable else None,
        }
