"""Wrap loggers so that their errors cannot stop a run.

A subclass of the same name replaces the class of a logger, so `isinstance` and `logger.experiment` work as before.
A thread calls remote services (`delivery.py`). Loggers that write files are called directly.
"""

from __future__ import annotations

import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
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
from fulgurite.core.redact import hide_secrets, without_secrets
from fulgurite.loggers.delivery import DeliveryQueue, PendingCall, WaitBudget, causes_of, error_of, one_line

SERVICES = frozenset({"MLFlowLogger", "WandbLogger", "CometLogger", "AimLogger"})
CONNECTS_IN_CONSTRUCTOR = frozenset({"CometLogger"})
# MLflow's client retries a dead server for minutes before it raises; DeliveryQueue retries instead
CLIENT_SETTINGS = {"MLFlowLogger": {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}}
DEFAULT_TIMEOUT_SECONDS = 30.0

log = RankedLogger(__name__)


def build_guarded(
    name: str, node: Mapping[str, Any], build: Callable[[], Logger], run_dir: str | Path, budget: WaitBudget
) -> Logger | None:
    """Build a logger from its config and guard it, or return None if its service cannot be reached now."""
    kind = str(node["_target_"]).rpartition(".")[2]
    for variable, value in CLIENT_SETTINGS.get(kind, {}).items():
        os.environ.setdefault(variable, value)
    try:
        logger = _call_within(budget, name, build) if kind in CONNECTS_IN_CONSTRUCTOR else build()
    except Exception as error:
        # `build` has wrapped the error of a service in a ConfigError
        cause = error.__cause__.__cause__ if isinstance(error, ConfigError) and error.__cause__ else None
        if not _is_optional(kind, error, cause):
            raise
        log.warning("%s: %s. Training continues without this logger.", name, one_line(cause or error))
        return None
    return guard(logger, name, run_dir, budget)


def guard(logger: Logger, name: str, run_dir: str | Path, budget: WaitBudget | None = None) -> Logger:
    """Change a logger in place so that its errors cannot stop a run, and return it.

    Undelivered calls are saved to `<run_dir>/undelivered-<name>.jsonl`. Call `fulgurite.loggers.close` at the end of
    the run.

    Args:
        logger: Any Lightning logger.
        name: Used in messages and in the file name.
        run_dir: Folder of that file.
        budget: Seconds that the run may wait for its loggers, shared by all of them. None is 30 s for this logger.

    Example:
        >>> logger = fulgurite.loggers.guard(WandbLogger(project="mnist"), "wandb", "run")
        >>> Trainer(logger=logger).fit(model)
        >>> fulgurite.loggers.close([logger], failed=False)
    """
    original = type(logger)
    is_remote = any(base.__name__ in SERVICES for base in original.__mro__)
    vars(logger)["delivery"] = DeliveryQueue(name, Path(run_dir), budget or WaitBudget(DEFAULT_TIMEOUT_SECONDS))
    logger.__class__ = _guarded_class(_RemoteLogger if is_remote else _FileLogger, original)
    return logger


def run_ids(loggers: Sequence[Logger]) -> dict[str, str]:
    """Return the run ID of each guarded logger by its name in the config, without loggers that have no ID yet."""
    ids = {}
    for logger in loggers:
        # a service assigns the ID when it connects
        is_offline = isinstance(logger, _RemoteLogger) and isinstance(logger.experiment, DummyExperiment)
        if isinstance(logger, _GuardedLogger) and not is_offline and logger.version is not None:
            ids[logger.delivery.name] = str(logger.version)
    return ids


def enqueue(logger: Logger, function: Callable[[Any], None], content: dict[str, Any] | None = None) -> None:
    """Call a function with a logger, directly or after all earlier calls of a guarded one."""
    if isinstance(logger, _GuardedLogger):
        logger._call(partial(function, logger), content)
    else:
        function(logger)


def close_all(loggers: Sequence[Logger]) -> None:
    """Wait for the pending calls of all loggers, and save undelivered ones."""
    queues = [logger.delivery for logger in loggers if isinstance(logger, _RemoteLogger) and logger.delivery.thread]
    for delivery in queues:
        delivery.begin_close()
    for delivery in queues:
        delivery.close()


class _GuardedLogger(Logger):
    """Passes the methods of a logger on to `_call`."""

    delivery: DeliveryQueue
    original_class: type[Logger]

    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        raise NotImplementedError

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        # a tensor may change before the thread sends its value
        items = ((hide_secrets(name), value) for name, value in metrics.items())
        numbers = {k: v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for k, v in items}
        content = {"call": "log_metrics", "step": step, "metrics": numbers}
        self._call(partial(super().log_metrics, numbers, step), content)  # type: ignore[safe-super]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        params = without_secrets(vars(params) if isinstance(params, Namespace) else params)
        content = {"call": "log_hyperparams", "params": params}
        self._call(partial(super().log_hyperparams, params, *args, **kwargs), content)  # type: ignore[safe-super]

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        self._call(partial(super().log_graph, *args, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        self._call(partial(super().after_save_checkpoint, checkpoint_callback))  # type: ignore[arg-type]

    def finalize(self, status: str) -> None:
        self._call(partial(super().finalize, status))

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle finds no module for a class that is made at run time: a spawned process makes it again
        get_state = getattr(super(), "__getstate__", None)
        state = get_state() if get_state else vars(self).copy()
        return _restore, (type(self).__mro__[1], self.original_class, state)


class _RemoteLogger(_GuardedLogger):
    """A logger whose thread makes all calls, on rank 0."""

    @property
    def experiment(self) -> Any:
        """The client's run, or a dummy that ignores all calls while there is no connection."""
        if self.delivery.in_worker_thread or not _is_rank_zero():
            return self._connect()
        self.delivery.start(self._connect)
        return self._connect() if self.delivery.wait_connected() else DummyExperiment()

    def _connect(self) -> Any:
        return super().experiment  # type: ignore[misc]

    @rank_zero_only
    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        if self.delivery.in_worker_thread:
            function()
        else:
            self.delivery.start(self._connect)
            self.delivery.send(PendingCall(function, content))

    def finalize(self, status: str) -> None:
        if self.delivery.thread is None:
            return  # nothing was logged
        super().finalize(status)
        if _is_rank_zero() and not self.delivery.in_worker_thread:
            self.delivery.end_stage()


class _FileLogger(_GuardedLogger):
    """A logger whose OS errors are reported once; other errors of its methods are raised."""

    @property
    def experiment(self) -> Any:
        """The writer, or a dummy that ignores all calls if the files cannot be opened."""
        try:
            return super().experiment  # type: ignore[misc]
        except OSError as error:
            self._warn_once(error)
            return DummyExperiment()

    def _call(self, function: Callable[[], Any], content: dict[str, Any] | None = None) -> None:
        error = error_of(function)
        if error is not None and not any(isinstance(cause, OSError) for cause in causes_of(error)):
            raise error
        self._warn_once(error)

    def _warn_once(self, error: Exception | None) -> None:
        if error is not None:
            self.delivery.warn_once(one_line(error), "and metrics.csv has the metrics")

    # the arguments were accepted before, so an error of these is no mistake of the user
    def save(self) -> None:
        self._warn_once(error_of(super().save))

    def finalize(self, status: str) -> None:
        self._warn_once(error_of(partial(super().finalize, status)))


@cache
def _guarded_class(kind: type[_GuardedLogger], original: type[Logger]) -> type[Logger]:
    attributes = {"__module__": original.__module__, "__doc__": original.__doc__, "original_class": original}
    return type(original.__name__, (kind, original), attributes)


def _restore(kind: type[_GuardedLogger], original: type[Logger], state: dict[str, Any]) -> Logger:
    logger = object.__new__(_guarded_class(kind, original))
    set_state = getattr(logger, "__setstate__", None)
    set_state(state) if set_state else vars(logger).update(state)
    return logger


def _is_rank_zero() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _is_optional(kind: str, error: Exception, cause: BaseException | None) -> bool:
    """Return whether a run continues without a logger that raised in its constructor: not if an argument is wrong."""
    if kind not in SERVICES:
        return any(isinstance(found, OSError) for found in causes_of(error))
    if isinstance(error, ConfigError):
        return isinstance(cause, ValueError) and kind in CONNECTS_IN_CONSTRUCTOR
    return type(error).__name__ != "MisconfigurationException" and not isinstance(error, ImportError)


def _call_within(budget: WaitBudget, name: str, build: Callable[[], Logger]) -> Logger:
    """Call `build` in a thread, and wait no longer than the budget allows."""
    changed, future = threading.Condition(), Future[Logger]()

    def work() -> None:
        if (error := error_of(lambda: future.set_result(build()))) is not None:
            future.set_exception(error)
        with changed:
            changed.notify_all()

    threading.Thread(target=work, name=f"logger-{name}", daemon=True).start()
    with changed:
        if not budget.wait(changed, future.done, fraction=0.5):
            raise TimeoutError("no response")
    return future.result()
