"""Repeat the hook `on_train_epoch_start` when a run resumes amid an epoch, where Lightning does not call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, StochasticWeightAveraging
from lightning.pytorch.loggers.logger import DummyLogger

from fulgurite.compat.lightning import call_model_hook, epoch_results

# Lightning's others count, draw or log there
REPEATED: tuple[type[Callback], ...] = (GradientAccumulationScheduler, StochasticWeightAveraging)
HOOK = "on_train_epoch_start"


def repeat_epoch_start(trainer: Trainer) -> list[str]:
    """Call the hook of user code, and undo its effects on what the checkpoint restored.

    Effects on anything else remain: factors in the trainer, in data sets, in samplers. Loggers get nothing.

    Returns:
        The keys that the hook logged.
    """
    model: LightningModule = trainer.lightning_module
    hooks = [getattr(callback, HOOK) for callback in vars(trainer)["callbacks"] if _is_repeated(callback)]
    has_model_hook = getattr(type(model), HOOK) is not LightningModule.on_train_epoch_start or HOOK in vars(model)
    if not hooks and not has_model_hook:
        return []
    before = set(epoch_results(trainer))
    with _kept_weights(model), _without_loggers(trainer):
        for hook in hooks:
            hook(trainer, model)
        if has_model_hook:
            call_model_hook(trainer, HOOK)
    return sorted(set(epoch_results(trainer)) - before)


def count_skipped_batch(trainer: Trainer) -> None:
    """Complete the count of batches after `on_train_batch_start` returned -1, from which Lightning 2.6 resumes."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    total.started = total.processed = total.completed = total.ready


def _is_repeated(callback: Callback) -> bool:
    if isinstance(vars(callback).get(HOOK), Callable):  # type: ignore[arg-type]
        return True  # a LambdaCallback
    owner = next(kind for kind in type(callback).__mro__ if HOOK in vars(kind))
    return owner in REPEATED or not owner.__module__.startswith(("lightning.", "fulgurite."))


@contextmanager
def _kept_weights(model: LightningModule) -> Iterator[None]:
    weights = [*model.parameters(), *model.buffers()]
    copies = [weight.detach().clone() for weight in weights]
    yield
    with torch.no_grad():
        for weight, copy in zip(weights, copies, strict=True):
            weight.copy_(copy)


@contextmanager
def _without_loggers(trainer: Trainer) -> Iterator[None]:
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers
