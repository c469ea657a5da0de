"""Make the loaders of a data module exact, in the process that trains."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from fulgurite.compat.lightning import defer_first_fetch, uses_distributed_sampler
from fulgurite.core.exactness import name_inexact
from fulgurite.dataloading.patch import patch_loaders
from fulgurite.exact_resume.loader import ShardSpec, make_exact
from fulgurite.exact_resume.order.epoch import FoundGenerators
from fulgurite.exact_resume.order.rng import ScopedRng, derive_seed
from fulgurite.exact_resume.order.seeded import seed_passes, shards_itself
from fulgurite.exact_resume.stream_cursor import StreamResume, StreamSpec
from fulgurite.exact_resume.streams import follow_all
from fulgurite.exact_resume.user_state.user_state import UserState

MARK = "is_exact"  # attribute of a wrapped loader method


class DataLoaders:
    """The loaders that a data module makes in a run.

    Args:
        seed: Seed of data order and augmentation.
        stream_resume: Where a stream without a state resumes.
        user_state: State that user code keeps outside of weights.
        restore: Restores a resumed run, once.
    """

    def __init__(
        self, seed: int, stream_resume: StreamResume, user_state: UserState, restore: Callable[[], None]
    ) -> None:
        self.seed = seed
        self.rng = ScopedRng()  # of batches that are made in the training process
        self._stream_resume: StreamResume = stream_resume
        self._user_state = user_state
        self._restore = restore
        self._generators: FoundGenerators = {}  # of the user's samplers

    def wrap(self, datamodule: LightningDataModule) -> None:
        """Make the loaders of a data module exact where possible."""
        make = datamodule.train_dataloader
        current = getattr(make, MARK, [])
        current[:] = [self]  # an earlier trainer may have wrapped the method

        @wraps(make)
        def train_dataloader() -> Any:
            trainer, (owner,) = cast("Trainer", datamodule.trainer), current
            owner._user_state.before_loaders(trainer)
            return owner._make_exact(make(), trainer)

        def pass_seed() -> int:
            trainer = cast("Trainer", datamodule.trainer)
            return derive_seed("validation", self.seed, trainer.current_epoch, trainer.global_step)

        def seed_validation(loader: DataLoader[Any]) -> None:
            if cast("Trainer", datamodule.trainer).world_size == 1 or shards_itself(loader):
                seed_passes(loader, pass_seed)
            if loader.generator is None:
                # persistent workers draw once per process, so a resumed run would draw once more
                loader.generator = torch.Generator().manual_seed(derive_seed("validation", self.seed))

        if not hasattr(make, MARK):
            setattr(train_dataloader, MARK, current)
            vars(datamodule)["train_dataloader"] = train_dataloader
        patch_loaders(datamodule, seed_validation, MARK, ["val_dataloader"])

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

    def _shard_spec(self, trainer: Trainer) -> ShardSpec:
        # without use_distributed_sampler the data module shards the data itself
        ranks = (trainer.distributed_sampler_kwargs or {}) if uses_distributed_sampler(trainer) else {}
        may_fetch = defer_first_fetch(trainer)

        def on_start() -> bool:
            if is_allowed := may_fetch():
                self._restore()
            return is_allowed

        return ShardSpec(
            self.seed,
            on_start,
            self.rng,
            ranks.get("rank", 0),
            ranks.get("num_replicas", 1),
            StreamSpec(trainer, self.seed, on_start, self._stream_resume),
            trainer.global_rank,
            generators=self._generators,
        )
