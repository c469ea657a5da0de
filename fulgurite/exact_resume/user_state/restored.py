"""Keep what a checkpoint restored, repeat the hook of an epoch's start, and put back what hooks changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers.logger import DummyLogger
from torch.distributed.tensor import DTensor
from torch.nn.parameter import is_lazy

from fulgurite.compat.lightning import call_model_hook

EPOCH_START = "on_train_epoch_start"
HOOKS = ("on_fit_start", "on_train_start", EPOCH_START)  # between the restore of weights and the first batch
# Lightning's callbacks that are called again amid an epoch: its others count, draw or log there
REPEATED: tuple[type[Callback], ...] = (GradientAccumulationScheduler, StochasticWeightAveraging)
# Lightning's callbacks whose hook of an epoch's start changes weights or optimizers: a run that resumes between two
# epochs calls it again
CHANGING = (*REPEATED, BaseFinetuning)
TUNERS = (LearningRateFinder, BatchSizeFinder)

Undo = Callable[[], None]


class Restored:
    """Weights, optimizers and schedulers as a checkpoint restored them.

    Copies are in host memory until the first batch, where they take less than the loaded checkpoint did. There are none
    where no hook before the first batch changes them.
    """

    def __init__(self) -> None:
        self._weights: dict[str, torch.Tensor] = {}
        self._undo: list[Undo] = []

    def keep_weights(self, trainer: Trainer, names: Iterable[str] | None) -> None:
        """Copy the weights and buffers of these names, or all; what a checkpoint lacks keeps what hooks give it."""
        saved = None if names is None else set(names)
        if not _has_hooks(trainer):
            return
        self._weights = {
            name: _local(weight).to("cpu", copy=True)
            for name, weight in _named_weights(trainer.lightning_module)
            if saved is None or name in saved
        }

    def keep_optimizers(self, trainer: Trainer) -> None:
        """Copy the optimizers and schedulers, once Lightning has restored them."""
        if not _has_hooks(trainer):
            self._undo = []
            return
        # the averaging of weights replaces the scheduler itself, in a hook
        has_swa = any(isinstance(callback, StochasticWeightAveraging) for callback in vars(trainer)["callbacks"])
        self._undo = [
            *(() if has_swa else _keep_schedulers(trainer)),
            _keep_list(trainer),
            *map(_keep_optimizer, trainer.optimizers),
        ]

    def put_back(self, trainer: Trainer) -> None:
        """Undo what hooks changed, and release the copies."""
        weights, self._weights = self._weights, {}
        undo, self._undo = self._undo, []
        with torch.no_grad():
            for name, weight in _named_weights(trainer.lightning_module):
                if (kept := weights.get(name)) is not None and kept.shape == _local(weight).shape:
                    _local(weight).copy_(kept)
            for function in undo:
                function()


def user_hooks(trainer: Trainer, name: str) -> Iterator[Callback]:
    """Yield the callbacks with a hook that a resumed run calls: those of user code, and a few of Lightning's."""
    for callback in vars(trainer)["callbacks"]:
        if isinstance(vars(callback).get(name), Callable):  # type: ignore[arg-type]
            yield callback  # a LambdaCallback
            continue
        owner = next(kind for kind in type(callback).__mro__ if name in vars(kind))
        if not owner.__module__.startswith(("lightning.", "fulgurite.")) or (name == EPOCH_START and owner in REPEATED):
            yield callback


def has_model_hook(model: LightningModule, name: str) -> bool:
    """Return whether a model has a hook of its own."""
    return getattr(type(model), name) is not getattr(LightningModule, name) or name in vars(model)


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


def _has_hooks(trainer: Trainer) -> bool:
    model: LightningModule = trainer.lightning_module
    if any(isinstance(callback, CHANGING) for callback in vars(trainer)["callbacks"]):
        return True
    return any(has_model_hook(model, name) or any(user_hooks(trainer, name)) for name in HOOKS)


def _named_weights(model: LightningModule) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(weight):
            yield name, weight


def _local(weight: torch.Tensor) -> torch.Tensor:
    """Return the values that this rank has of a weight, which shares its memory."""
    return weight.to_local().detach() if isinstance(weight, DTensor) else weight.detach()


def _keep_list(trainer: Trainer) -> Undo:
    optimizers = list(trainer.optimizers)

    def undo() -> None:
        if [*map(id, trainer.optimizers)] != [*map(id, optimizers)]:
            trainer.strategy.optimizers = optimizers

    return undo


def _keep_schedulers(trainer: Trainer) -> Iterator[Undo]:
    configs = list(trainer.lr_scheduler_configs)
    states = [deepcopy(config.scheduler.state_dict()) for config in configs]

    def undo() -> None:
        trainer.strategy.lr_scheduler_configs = configs
        for config, state in zip(configs, states, strict=True):
            config.scheduler.load_state_dict(state)

    yield undo


def _keep_optimizer(optimizer: torch.optim.Optimizer) -> Undo:
    groups = [(group, {**group, "params": list(group["params"])}) for group in optimizer.param_groups]
    tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
    state = {parameter: _copied(values, tensors) for parameter, values in optimizer.state.items()}

    def undo() -> None:
        for group, kept in groups:
            group.clear()
            group.update(kept)
        optimizer.param_groups[:] = [group for group, _ in groups]
        for tensor, values in tensors:
            _local(tensor).copy_(values)
        optimizer.state.clear()
        optimizer.state.update(state)

    return undo


def _copied(value: Any, tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """Return a copy of nested containers with the same tensors, whose values are added to `tensors`."""
    if isinstance(value, dict):
        return {key: _copied(part, tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part, tensors) for part in value)
    if isinstance(value, torch.Tensor):
        tensors.append((value, _local(value).to("cpu", copy=True)))
    return value
