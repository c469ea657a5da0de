"""Trackers as the trainer gets them: objects of their own class that never stop a run.

The class of a tracker is replaced by one made of a guard and that class, so `isinstance(logger, WandbLogger)`,
`type(logger).__name__` and `logger.experiment` are what callbacks expect. Trackers that are services are spoken to by a
thread (`delivery.py`); the others write files, are called where they stand, and may not reach the disk.
"""

from __future__ import annotations

import copyreg
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.compat.lightning import DummyExperiment
from fulgurite.core.errors import ConfigError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.loggers.delivery import DeliveryQueue, PendingCall, WaitBudget, one_line

SERVICES = frozenset({"MLFlowLogger", "WandbLogger", "CometLogger", "AimLogger"})
CONNECTS_WHEN_MADE = frozenset({"CometLogger"})
# A tracker's own client would try a dead server for minutes before it says so; we try again ourselves.
CLIENT_SETTINGS = {
    "MLFlowLogger": {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"},
}

log = RankedLogger(__name__)


def make_tracker(
    name: str, node: Mapping[str, Any], make: Callable[[], Logger], folder: str | Path, patience: WaitBudget
) -> Logger | None:
    """Make one tracker and guard it; None when it is a service that cannot be had now.

    Args:
        name: The tracker's name in the config.
        node: Its config.
        make: Makes it of that.
        folder: The run's directory.
        patience: How long the run waits for its trackers.

    Raises:
        ConfigError: The tracker refuses its arguments.
    """
    kind = str(node["_target_"]).rpartition(".")[2]
    for variable, value in CLIENT_SETTINGS.get(kind, {}).items():
        os.environ.setdefault(variable, value)
    try:
        logger = _within(patience, name, make) if kind in CONNECTS_WHEN_MADE else make()
    except Exception as error:
        if not _may_fail(kind, error):
            raise
        log.warning("%s: %s; the run goes on without it", name, one_line(_refusal(error) or error))
        return None
    return guard(logger, name, folder, patience)


def guard(logger: Logger, name: str, folder: str | Path, patience: WaitBudget) -> Logger:
    """Guard a tracker, in place, and return it.

    Args:
        logger: Any logger.
        name: Its name in the config.
        folder: The run's directory, for what is not delivered.
        patience: How long the run waits for its trackers.
    """
    own = type(logger)
    kind = _RemoteLogger if any(base.__name__ in SERVICES for base in own.__mro__) else _FileLogger
    line = DeliveryQueue(name, Path(folder), patience)
    logger.__class__ = _guarded(kind, own)
    vars(logger)["line"] = line
    return logger


def run_id(logger: Logger) -> tuple[str, str] | None:
    """Return a tracker's name in the config and the id of its own run; None when it has none or is not guarded."""
    if not isinstance(logger, _GuardedLogger):
        return None
    # services know their id when their run is open; those that write files need not be opened for it
    if isinstance(logger, _RemoteLogger) and isinstance(logger.experiment, DummyExperiment):
        return None
    return None if logger.version is None else (logger.line.name, str(logger.version))


def enqueue(logger: Logger, function: Callable[[Any], None], content: dict[str, Any] | None = None) -> None:
    """Call a function with a tracker when all earlier calls are made, and where its failing stops nothing.

    Args:
        logger: Any logger; one that is not guarded is called at once.
        function: Takes the logger.
        content: What is kept of the call when it cannot be delivered.
    """
    if isinstance(logger, _GuardedLogger):
        logger._call(partial(function, logger), content)
    else:
        function(logger)


def close_all(loggers: Sequence[Logger]) -> None:
    """Wait for the last calls of all trackers, together, and keep what is not delivered."""
    lines = [logger.line for logger in loggers if isinstance(logger, _RemoteLogger) and logger.line.thread]
    for line in lines:
        line.begin_close()
    for line in lines:
        line.close()


class _GuardedLogger(Logger):
    """What both guards are: a way to call the methods of the class below."""

    line: DeliveryQueue
    own: type[Logger]

    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        raise NotImplementedError

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        numbers = {name: _number(value) for name, value in metrics.items()}
        content = {"call": "log_metrics", "step": step, "metrics": numbers}
        self._call(partial(super().log_metrics, numbers, step), content)  # type: ignore[safe-super]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        content = {"call": "log_hyperparams", "params": params}
        self._call(partial(super().log_hyperparams, params, *args, **kwargs), content)  # type: ignore[safe-super]

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        self._call(partial(super().log_graph, *args, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        self._call(partial(super().after_save_checkpoint, checkpoint_callback))  # type: ignore[arg-type]

    def finalize(self, status: str) -> None:
        self._call(partial(super().finalize, status))

    def __reduce__(self) -> tuple[Any, ...]:
        # the class is made here and found in no module: a process that is spawned makes it again
        own_state = getattr(super(), "__getstate__", None)
        state = own_state() if own_state else vars(self).copy()
        return _restore, (type(self).__mro__[1], self.own, state)


class _RemoteLogger(_GuardedLogger):
    """Everything is said by the tracker's thread, on rank 0."""

    @property
    def experiment(self) -> Any:
        """The tracker's own client or run; what swallows every call while there is none."""
        if self.line.in_worker_thread or not _speaks():
            return self._own_experiment()
        self.line.begin(self._own_experiment)
        return self._own_experiment() if self.line.wait_connected() else DummyExperiment()

    def _own_experiment(self) -> Any:
        return super().experiment  # type: ignore[misc]

    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        if not _speaks():
            return
        if self.line.in_worker_thread:
            function()
        else:
            self.line.begin(self._own_experiment)
            self.line.send(PendingCall(function, content))

    def finalize(self, status: str) -> None:
        if self.line.thread is None:
            return  # nothing was said: there is nothing to end
        super().finalize(status)
        if _speaks() and not self.line.in_worker_thread:
            self.line.end_stage()


class _FileLogger(_GuardedLogger):
    """An error of the system is told once; any other is raised, as it would be without a guard."""

    @property
    def experiment(self) -> Any:
        """The tracker's own writer; what swallows every call when it cannot be made."""
        try:
            return super().experiment  # type: ignore[misc]
        except OSError as error:
            self._tell(error)
            return DummyExperiment()

    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        try:
            function()
        except Exception as error:
            if not _is_of_the_system(error):
                raise
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self.line.told:
            self.line.told = True
            log.warning("%s: %s; the run goes on, its metrics are in metrics.csv", self.line.name, one_line(error))

    def save(self) -> None:
        try:
            super().save()
        except Exception as error:  # noqa: BLE001 - what it writes was taken before: no mistake of the caller
            self._tell(error)

    def finalize(self, status: str) -> None:
        try:
            super().finalize(status)
        except Exception as error:  # noqa: BLE001
            self._tell(error)


@cache
def _guarded(kind: type[_GuardedLogger], own: type[Logger]) -> type[Logger]:
    return type(own.__name__, (kind, own), {"__module__": own.__module__, "__doc__": own.__doc__, "own": own})


def _restore(kind: type[_GuardedLogger], own: type[Logger], state: dict[str, Any]) -> Logger:
    logger: Logger = copyreg.__newobj__(_guarded(kind, own))  # type: ignore[attr-defined]
    set_state = getattr(logger, "__setstate__", None)
    set_state(state) if set_state else vars(logger).update(state)
    return logger


def _speaks() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _number(value: Any) -> Any:
    """Return a tensor of one element as its number: by the time it is sent, the tensor may hold another."""
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _is_of_the_system(error: BaseException | None) -> bool:
    seen: list[BaseException] = []  # a cause that is raised from its wrapper makes a circle
    while error is not None and not isinstance(error, OSError) and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return isinstance(error, OSError)


def _refusal(error: Exception) -> BaseException | None:
    """Return what the tracker itself raised, where that was taken for a mistake in the config."""
    return error.__cause__.__cause__ if isinstance(error, ConfigError) and error.__cause__ else None


def _may_fail(kind: str, error: Exception) -> bool:
    """Tell whether a run goes on without a tracker that cannot be made: not when its arguments are wrong."""
    if kind not in SERVICES:
        return _is_of_the_system(error)
    if isinstance(error, ConfigError):
        return isinstance(_refusal(error), ValueError) and kind in CONNECTS_WHEN_MADE
    return type(error).__name__ != "MisconfigurationException" and not isinstance(error, ImportError)


def _within(patience: WaitBudget, name: str, make: Callable[[], Logger]) -> Logger:
    """Call `make` in a thread and wait no longer than the run has patience for.

    Raises:
        TimeoutError: There was no answer.
    """
    made: list[Logger] = []
    raised: list[Exception] = []
    changed = threading.Condition()

    def attempt() -> None:
        try:
            made.append(make())
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            raised.append(error)
        with changed:
            changed.notify_all()

    threading.Thread(target=attempt, name=f"tracker-{name}", daemon=True).start()
    with changed:
        patience.wait(changed, lambda: bool(made or raised), share=0.5)
    if raised:
        raise raised[0]
    if not made:
        raise TimeoutError("no answer")
    return made[0]
