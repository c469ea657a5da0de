"""What every tracker is told about a run, and how its own run is ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


def describe(loggers: Sequence[Logger], hyperparameters: Mapping[str, Any], tags: Sequence[str]) -> None:
    """Tell every tracker the same hyperparameters, and the tags in the form it has for them.

    Args:
        loggers: The trainer's loggers.
        hyperparameters: Plain resolved values; nothing secret.
        tags: Names the run is found by.
    """
    for logger in loggers:
        logger.log_hyperparams(dict(hyperparameters))
        _set_tags(logger, tags)


def close(loggers: Sequence[Logger], *, failed: bool) -> None:
    """End every tracker's run, so that the next job of a sweep starts a new one."""
    for logger in loggers:
        # a tracker that cannot be closed must not hide how the run ended
        with suppress(Exception):
            logger.finalize("failed" if failed else "success")
            if ending := ENDINGS.get(type(logger).__name__):
                getattr(getattr(logger, "experiment"), ending)()  # noqa: B009 - not declared by the base class


@rank_zero_only
def _set_tags(logger: Logger, tags: Sequence[str]) -> None:
    if setter := TAGS.get(type(logger).__name__):
        setter(logger, tags)


def _set_mlflow_tags(logger: Any, tags: Sequence[str]) -> None:
    for tag in tags:
        logger.experiment.set_tag(logger.run_id, tag, "true")


def _set_wandb_tags(logger: Any, tags: Sequence[str]) -> None:
    logger.experiment.tags = tuple(tags)


def _set_comet_tags(logger: Any, tags: Sequence[str]) -> None:
    logger.experiment.add_tags(list(tags))


def _set_aim_tags(logger: Any, tags: Sequence[str]) -> None:
    for tag in tags:
        logger.experiment.add_tag(tag)


# Trackers without tags of their own (CSV, TensorBoard) find them among the hyperparameters.
TAGS: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "MLFlowLogger": _set_mlflow_tags,
    "WandbLogger": _set_wandb_tags,
    "CometLogger": _set_comet_tags,
    "AimLogger": _set_aim_tags,
}
# How a tracker's own run is ended; the others end with `finalize`.
ENDINGS = {"WandbLogger": "finish", "CometLogger": "end", "TensorBoardLogger": "close"}
