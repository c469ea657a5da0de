"""Stop training after a signal at a step that is saved, the same one on all ranks."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.compat.lightning import (
    SubprocessScriptLauncher,
    call_after_batch,
    disable_signal_handlers,
    disable_sigterm_broadcast,
    find_saver,
    is_accumulating,
)
from fulgurite.core.context import setting
from fulgurite.core.errors import Interrupted
from fulgurite.dataloading.patch import patch_loaders
from fulgurite.shutdown.signals import IgnoreInWorker, signal_handler

AGREEMENT_SECONDS = 1.0  # between two all-reduces of the ranks
MAX_BATCHES = 1000  # between two all-reduces


class StopOnSignal(Callback):
    """Callback that checks for a signal after each optimizer step, saves the run and stops it.

    It comes after the callbacks that save. A signal to any rank counts for all: about once a second an all-reduce takes
    the largest signal number, then all ranks stop at the same step. Without a `saver`, a callback with `save_here` as
    `callbacks.LastCheckpoint` has it, the run stops unsaved.
    """

    def __init__(self, saver: Any, folder: Path) -> None:
        self.saver = saver
        self.folder = folder
        self._interval = self._remaining = 1  # batches between two all-reduces, and to the next one
        self._agreed_at = 0.0
        self._stopping = self._reported = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals here instead of raising at once."""
        self._agreed_at = time.monotonic()
        # Lightning's broadcast covers SIGTERM on rank 0 only, and waits for the device at every batch
        disable_sigterm_broadcast(trainer)
        signals = signal_handler()
        signals.saved, signals.find_last, signals.training = "", self._find_last, True
        call_after_batch(trainer, self, partial(self._stop_after_batch, trainer, pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs."""
        self._poll(trainer, now=True)
        self._save_and_stop(trainer, pl_module, between_epochs=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Agree with the other ranks when it is time."""
        if trainer.world_size > 1:
            self._poll(trainer)

    def _stop_after_batch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            self._poll(trainer)
        if self._stopping and not is_accumulating(trainer):
            self._save_and_stop(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the stop to the code after training: the metrics of the last epoch are not written yet."""
        signals = signal_handler()
        self._poll(trainer, now=True)
        signals.training = False
        if self.saver is not None and self.saver.newest is not None:
            signals.saved = f"saved at {self._describe(self.saver.newest)}"
        self._reported, signals.ranks_agreed = self._stopping, self._stopping and trainer.world_size > 1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Terminate the ranks of a run that stopped at once."""
        signals = signal_handler()
        signals.training = False
        if isinstance(exception, Interrupted) and not self._reported:
            signals.terminate_ranks()

    def _poll(self, trainer: Trainer, *, now: bool = False) -> None:
        """Update `_stopping`; with several ranks only when an all-reduce is due, or `now`."""
        signals = signal_handler()
        if trainer.world_size == 1:
            self._stopping = signals.requested is not None
            return
        self._remaining -= 1
        if self._stopping or (self._remaining > 0 and not now):
            return
        batches = max(self._interval - self._remaining, 1)
        seconds = (time.monotonic() - self._agreed_at) / batches
        interval = min(max(int(AGREEMENT_SECONDS / max(seconds, 1e-9)), 1), MAX_BATCHES)
        # one maximum gives any signal and the smallest interval
        both = torch.tensor([signals.requested or 0, -interval], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
        requested, negative_interval = both.tolist()
        self._interval = self._remaining = -negative_interval
        self._agreed_at = time.monotonic()
        if requested:
            signals.adopt(requested)
            self._stopping = True

    def _save_and_stop(self, trainer: Trainer, pl_module: LightningModule, *, between_epochs: bool = False) -> None:
        if not self._stopping:
            return
        signals = signal_handler()
        if vars(trainer)["fast_dev_run"]:
            saved = "nothing saved: fast_dev_run saves nothing"
        elif self.saver is None:
            saved = f"nothing saved: the run has no {setting('callbacks.last_checkpoint', 'LastCheckpoint')}"
        elif self.saver.save_here(trainer, pl_module, between_epochs=between_epochs):
            if isinstance(checkpoint_io := trainer.strategy.checkpoint_io, AsyncVerifiedCheckpointIO):
                checkpoint_io.finish()
            saved = f"saved at {self._describe(trainer.global_step)}"
        else:
            return
        self._reported, signals.ranks_agreed = True, trainer.world_size > 1
        signals.training = False
        signals.stop(saved)

    def _find_last(self) -> str:
        has_saved = self.saver is not None and self.saver.newest is not None
        return f"last saved at {self._describe(self.saver.newest)}" if has_saved else ""

    def _describe(self, step: int) -> str:
        assert self.saver is not None
        return f"step {step} in {os.path.relpath(self.saver.best_model_path, self.folder)}"


def stop_on_signals(
    trainer: Trainer, datamodule: LightningDataModule | None, folder: Path, grace_seconds: float
) -> None:
    """Install `StopOnSignal` in a process that handles signals, and disable Lightning's own handlers.

    The workers of DataLoaders ignore the signals. `grace_seconds` count from the signal to a step that can be saved.
    """
    signals = signal_handler()
    if not signals.is_installed:
        return
    signals.grace_seconds = grace_seconds
    signals.launcher = launcher = trainer.strategy.launcher
    disable_signal_handlers(trainer)
    if launcher is not None and not isinstance(launcher, SubprocessScriptLauncher):
        return  # spawned ranks handle no signals and end with this process
    environment = getattr(launcher, "cluster_environment", None)
    if type(environment) is LightningEnvironment and environment.local_rank() > 0:
        signals.parent = os.getppid()
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    callbacks.append(StopOnSignal(find_saver(trainer), folder))
    if datamodule is not None:
        patch_loaders(datamodule, _ignore_in_workers, "is_shielded")


def _ignore_in_workers(loader: DataLoader[Any]) -> None:
    if loader.num_workers and not isinstance(loader.worker_init_fn, IgnoreInWorker):
        # Lightning seeds the workers of a DataLoader without a worker_init_fn
        seeded = pl_worker_init_function if os.environ.get("PL_SEED_WORKERS", "0") != "0" else None
        loader.worker_init_fn = IgnoreInWorker(loader.worker_init_fn or seeded)
