"""Make the loaders of a data module exact, in the process that trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DistributedSampler

from fulgurite.compat.lightning import (
    defer_first_fetch,
    train_iterators,
    train_loaders,
    uses_distributed_sampler,
)
from fulgurite.compat.lightning_loaders import (
    count_epoch_starts,
    fetch_without_lookahead,
    mark_last_batch,
    note_requests,
    update_epoch_length,
)
from fulgurite.core.exactness import name_inexact
from fulgurite.dataloading.patch import each_loader, wrap_method
from fulgurite.exact_resume.loader import ShardSpec
from fulgurite.exact_resume.loader_states import LoaderStates
from fulgurite.exact_resume.make_exact import make_exact
from fulgurite.exact_resume.order.collate import note_first
from fulgurite.exact_resume.order.own import FoundGenerators
from fulgurite.exact_resume.order.rng import ScopedRng, derive_seed
from fulgurite.exact_resume.order.seeded import seed_passes
from fulgurite.exact_resume.streams.cursor import StreamResume, StreamSpec
from fulgurite.exact_resume.streams.following import follow_all, is_followed
from fulgurite.exact_resume.user_state.loader_owners import TRAINING, VALIDATION
from fulgurite.exact_resume.user_state.user_state import UserState
from fulgurite.exact_resume.workers.worker_copies import make_watch

MARK = "is_exact"  # attribute of a wrapped loader method
METHODS = {TRAINING: "train_dataloader", VALIDATION: "val_dataloader"}  # by kind of loaders


class DataLoaders:
    """The loaders that a data module makes in a run."""

    def __init__(
        self, seed: int, stream_resume: StreamResume, user_state: UserState, restore: Callable[[], None]
    ) -> None:
        self.seed = seed
        self.rng = ScopedRng()  # of batches that are made in the training process
        self._stream_resume: StreamResume = stream_resume
        self.states = LoaderStates(user_state.attributes)
        self._user_state = user_state
        self._restore = restore  # restores a resumed run, once
        self._generators: FoundGenerators = {}  # of the user's samplers
        self.is_started = False  # whether Lightning has restored its loops

    def wrap(self, datamodule: LightningDataModule) -> None:
        """Make the loaders of a data module exact where possible."""
        note_requests(cast("Trainer", datamodule.trainer))
        make_training = partial(self._make, TRAINING, self._make_exact, datamodule)
        wrap_method(datamodule, "train_dataloader", make_training, MARK)

        def pass_seed() -> int:
            trainer = cast("Trainer", datamodule.trainer)
            return derive_seed("validation", self.seed, trainer.current_epoch, trainer.global_step)

        def seed_validation(loaders: Any, trainer: Trainer) -> Any:
            for loader in each_loader(loaders):
                note_first(loader)
                if trainer.world_size == 1 or isinstance(loader.sampler, DistributedSampler):
                    # other workers begin each pass alike
                    seed_passes(loader, pass_seed, make_watch(loader) if loader.persistent_workers else None)
                if loader.generator is None:
                    # persistent workers draw once per process, so a resumed run would draw once more
                    loader.generator = torch.Generator().manual_seed(derive_seed("validation", self.seed))
            return loaders

        if is_overridden("val_dataloader", datamodule, LightningDataModule):  # else Lightning does not call it
            make_validation = partial(self._make, VALIDATION, seed_validation, datamodule)
            wrap_method(datamodule, "val_dataloader", make_validation, MARK)

    def _make(
        self, kind: str, change: Callable[[Any, Trainer], Any], datamodule: LightningDataModule, make: Callable[[], Any]
    ) -> Any:
        """Return the loaders of a kind that a method of the data module makes, changed."""
        trainer = cast("Trainer", datamodule.trainer)
        if trainer.state.fn != TrainerFn.FITTING or not note_requests(trainer)(METHODS[kind]):
            return change(make(), trainer)  # user code calls the method too
        if self.states.is_made(kind):
            self._restore()  # a reload in a resumed run
        if kind == TRAINING:
            self._user_state.before_loaders(trainer)
        with self.states.making(trainer, kind):
            loaders = make()
        loaders = change(loaders, trainer)
        self.states.made(trainer, kind, loaders)
        return loaders

    def _make_exact(self, loaders: Any, trainer: Trainer) -> Any:
        if vars(trainer)["overfit_batches"] != 0:
            name_inexact("trainer.overfit_batches", "the order of its batches is left to Lightning.")
            return loaders
        spec = self._shard_spec(trainer)
        loaders, reasons = make_exact(loaders, spec)
        follow_all(loaders, spec.streams)
        for reason in reasons:
            name_inexact("data.train_dataloader", f"{reason}. Its order and random changes may differ.")
        return loaders

    def _restore_started(self) -> None:
        """Restore a resumed run whose hooks of the start are over: user code reads a loader."""
        if self.is_started:
            self._restore()

    def _shard_spec(self, trainer: Trainer) -> ShardSpec:
        # without use_distributed_sampler the data module shards the data itself
        ranks = trainer.distributed_sampler_kwargs if uses_distributed_sampler(trainer) else None
        may_fetch = defer_first_fetch(trainer)

        def on_start() -> bool:
            if is_allowed := may_fetch():
                self._restore()
            return is_allowed

        def on_exact_start() -> bool:
            if len(train_loaders(trainer)) == 1:
                fetch_without_lookahead(trainer)
            is_allowed = on_start()
            update_epoch_length(trainer)
            return is_allowed

        def is_trained(iterator: Any) -> bool:
            return any(each is iterator for each in train_iterators(trainer))

        return ShardSpec(
            self.seed,
            on_exact_start,
            self.rng,
            None if ranks is None else (ranks["rank"], ranks["num_replicas"]),
            StreamSpec(trainer, self.seed, on_start, self._stream_resume, is_trained),
            trainer.global_rank,
            generators=self._generators,
            states=self.states,
            epoch=count_epoch_starts(trainer),
            on_last=partial(mark_last_batch, trainer),
            is_trained=lambda loader, iterator: is_followed(loader) or is_trained(iterator),
            on_read=self._restore_started,
        )
