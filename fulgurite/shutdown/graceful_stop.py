"""Stops training after a signal: at a step that is saved, all ranks at the same one."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.compat.lightning import (
    SubprocessScriptLauncher,
    disable_signal_handlers,
    disable_sigterm_broadcast,
    is_accumulating,
)
from fulgurite.core.errors import Interrupted
from fulgurite.dataloading.patch import patch_loaders
from fulgurite.shutdown.signals import IgnoreInWorker, signals

SECONDS = 1.0  # between two agreements of the ranks
MOST = 1000  # batches between them


class Saver(Protocol):
    """The callback that keeps the newest state (callbacks/last_checkpoint.py); it is found by what it can do."""

    newest: int | None
    best_model_path: str

    def save_here(self, trainer: Trainer, pl_module: LightningModule, *, between_epochs: bool = False) -> bool:
        """Save the state of now where a run can go on from it exactly, and tell whether that is saved."""


class StopOnSignal(Callback):
    """Looks after each optimizer step whether a signal has come, has the run saved, and ends it.

    Its place is behind the callbacks that save. Among several ranks a signal to any of them counts for all: about once
    a second they take the largest of what each has received, and then stop at the same step.

    Args:
        saver: Saves the run; None when it has no such callback: the run then ends unsaved.
        folder: The run directory.
        announce: Write to standard error what was saved.
    """

    def __init__(self, saver: Saver | None, folder: Path, *, announce: bool = False) -> None:
        self.saver = saver
        self.folder = folder
        self.announce = announce
        self._every = self._left = 1  # batches between two agreements, and to the next
        self._agreed_at = 0.0
        self._stop = self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal only asks."""
        self._agreed_at = time.monotonic()
        # Lightning would do the same for SIGTERM on rank 0 only, and wait for the device at every batch
        disable_sigterm_broadcast(trainer)
        signals.training = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs: the one before is complete."""
        self._look(trainer, now=True)
        self._stop_if_saved(trainer, pl_module, between_epochs=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Agree with the other ranks, when it is time."""
        if trainer.world_size > 1:
            self._look(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after an optimizer step."""
        if trainer.world_size == 1:
            self._look(trainer)
        if self._stop and not is_accumulating(trainer):
            self._stop_if_saved(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the end to what comes after training: the metrics of the last epoch are yet to be written."""
        self._look(trainer, now=True)
        signals.training = False
        if self.saver is not None and self.saver.newest is not None:
            signals.saved = f"saved at {self._where(self.saver.newest)}"
        self._told, signals.together = self._stop, self._stop and trainer.world_size > 1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what stands saved when the end came at once, and end the ranks that know nothing of it."""
        signals.training = False
        if not isinstance(exception, Interrupted) or self._told:
            return
        if not signals.saved and self.saver is not None and self.saver.newest is not None:
            saved = f"last saved at {self._where(self.saver.newest)}"
            exception.saved = f"{exception.saved}; {saved}" if exception.saved else saved
        signals.end_ranks()

    def _look(self, trainer: Trainer, *, now: bool = False) -> None:
        """Learn whether to stop; among several ranks when it is time to agree, or `now`."""
        if trainer.world_size == 1:
            self._stop = signals.asked is not None
            return
        self._left -= 1
        if self._stop or (self._left > 0 and not now):
            return
        batches = max(self._every - self._left, 1)
        seconds = (time.monotonic() - self._agreed_at) / batches
        wanted = min(max(int(SECONDS / max(seconds, 1e-9)), 1), MOST)
        # the least of the wanted distances, and any signal, as one maximum
        both = torch.tensor([signals.asked or 0, -wanted], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
        asked, distance = both.tolist()
        self._every = self._left = -distance
        self._agreed_at = time.monotonic()
        if asked:
            signals.adopt(asked)
            self._stop = True

    def _stop_if_saved(self, trainer: Trainer, pl_module: LightningModule, *, between_epochs: bool = False) -> None:
        if not self._stop:
            return
        if vars(trainer)["fast_dev_run"]:
            saved = "nothing saved: a fast_dev_run saves nothing"
        elif self.saver is None:
            saved = "nothing saved: the run has no callbacks.last_checkpoint"
        elif self.saver.save_here(trainer, pl_module, between_epochs=between_epochs):
            if isinstance(files := trainer.strategy.checkpoint_io, AsyncVerifiedCheckpointIO):
                files.finish()  # said to be saved when it is
            saved = f"saved at {self._where(trainer.global_step)}"
        else:
            return
        self._told, signals.together = True, trainer.world_size > 1
        if self.announce and trainer.is_global_zero and signals.asked is not None:
            sys.stderr.write(f"{signals.asked.name}: {saved}\n")
        signals.stop(saved)

    def _where(self, step: int) -> str:
        assert self.saver is not None
        return f"step {step} in {os.path.relpath(self.saver.best_model_path, self.folder)}"


def stop_on_signals(
    trainer: Trainer, datamodule: LightningDataModule, folder: Path, grace_seconds: float, *, announce: bool = False
) -> None:
    """Make a run end by our rules when a signal asks for it; does nothing in processes that do not listen by them.

    Args:
        trainer: Gets a callback more; Lightning installs no handlers of its own for it.
        datamodule: Its loaders' workers leave signals to this process.
        folder: The run directory.
        grace_seconds: Seconds that training may take to come to a step that can be saved.
        announce: Write to standard error what was saved; nobody else reports the stop.
    """
    if not signals.installed:
        return
    signals.grace = grace_seconds
    signals.launcher = trainer.strategy.launcher
    disable_signal_handlers(trainer)
    launcher = signals.launcher
    if launcher is not None and not isinstance(launcher, SubprocessScriptLauncher):
        return  # the ranks are spawned, not started as scripts: they listen to nothing and end with this process
    environment = getattr(launcher, "cluster_environment", None)
    if type(environment) is LightningEnvironment and environment.local_rank() > 0:
        signals.parent = os.getppid()
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    saver = next((cast("Saver", callback) for callback in callbacks if hasattr(callback, "save_here")), None)
    callbacks.append(StopOnSignal(saver, folder, announce=announce))
    patch_loaders(datamodule, _shield, "is_shielded")


def _shield(loader: DataLoader[Any]) -> None:
    if loader.num_workers and not isinstance(loader.worker_init_fn, IgnoreInWorker):
        # what Lightning gives to a loader that has none of its own
        seeded = pl_worker_init_function if os.environ.get("PL_SEED_WORKERS", "0") != "0" else None
        loader.worker_init_fn = IgnoreInWorker(loader.worker_init_fn or seeded)
