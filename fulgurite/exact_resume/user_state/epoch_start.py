"""Repeat the hook `on_train_epoch_start` when a run resumes amid an epoch, where Lightning does not call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.loggers.logger import DummyLogger

from fulgurite.compat.lightning import call_model_hook
from fulgurite.exact_resume.user_state.restored import EPOCH_START, has_model_hook, user_hooks

TUNERS = (LearningRateFinder, BatchSizeFinder)


def repeat_epoch_start(trainer: Trainer) -> None:
    """Call the hook of user code. Loggers get nothing; `Restored` undoes its effects on what the checkpoint holds."""
    model: LightningModule = trainer.lightning_module
    with _without_loggers(trainer):
        for callback in user_hooks(trainer, EPOCH_START):
            if isinstance(callback, TUNERS):
                continue  # its result is part of the checkpoint
            callback.on_train_epoch_start(trainer, model)
        if has_model_hook(model, EPOCH_START):
            call_model_hook(trainer, EPOCH_START)


def count_skipped_batch(trainer: Trainer) -> None:
    """Complete the count of batches after `on_train_batch_start` returned -1, from which Lightning 2.6 resumes."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    total.started = total.processed = total.completed = total.ready


@contextmanager
def _without_loggers(trainer: Trainer) -> Iterator[None]:
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
