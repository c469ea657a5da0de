"""What every tracker is told about a run, how its own run is ended, and how it goes on when the run does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from fulgurite.compat.lightning import flatten_params
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.loggers.guarded import close_all, enqueue, run_id

log = RankedLogger(__name__)


def resume_loggers(cfg: DictConfig, ids: Mapping[str, str], step: int) -> DictConfig | None:
    """Return the `logger` group with what each tracker needs to go on with its own run.

    MLflow, W&B, Comet and Aim open the run of that id again; what they hold of `step` and later stays there, and comes
    a second time. TensorBoard hides it, the CSV logger cuts it off.

    Args:
        cfg: The run's config; it is not changed.
        ids: What run.json holds under `loggers`.
        step: Of the checkpoint; rows of this step and of later ones are logged again.
    """
    group = copy.deepcopy(cfg).get("logger")  # all of it: a group by itself would have a parent that does not know it
    if group is None:
        return None
    with open_dict(group):
        for name, config in group.items():
            if config is not None:
                _set_resume_arguments(str(name), config, ids.get(str(name)), step)
    assert isinstance(group, DictConfig)
    return group


def _set_resume_arguments(name: str, config: Any, known: str | None, step: int) -> None:
    kind = str(config.get("_target_")).rpartition(".")[2] if isinstance(config, DictConfig) else ""
    if kind not in RESUME_ARGUMENT or config.get("_partial_"):
        log.info("%s: how this tracker goes on with its own run is not known; it starts as its config says", name)
        return
    argument = RESUME_ARGUMENT[kind]
    if known and argument and config.get(argument) is None:
        config[argument] = int(known) if argument == "version" and known.isdigit() else known
    if kind == "WandbLogger":
        config.setdefault("resume", "allow")
    elif kind == "TensorBoardLogger":
        config.purge_step = step
    elif kind == "CSVLogger":
        config._target_, config.before = "fulgurite.loggers.appending_csv.AppendingCSVLogger", step


def log_hyperparameters(loggers: Sequence[Logger], hyperparameters: Mapping[str, Any], tags: Sequence[str]) -> None:
    """Tell every tracker the same hyperparameters, and the tags in the form it has for them.

    Args:
        loggers: The trainer's loggers.
        hyperparameters: Plain resolved values; nothing secret.
        tags: Names the run is found by.
    """
    for logger in loggers:
        tell = HYPERPARAMETERS.get(type(logger).__name__, _log_hyperparameters)
        content = {"call": "log_hyperparams", "params": dict(hyperparameters)}
        enqueue(logger, partial(tell, hyperparameters=dict(hyperparameters)), content)
        if setter := TAGS.get(type(logger).__name__):
            enqueue(logger, partial(rank_zero_only(setter), tags=tags), {"call": "tags", "tags": list(tags)})


def run_ids(loggers: Sequence[Logger]) -> dict[str, str]:
    """Return the id of every tracker's own run by the tracker's name in the config; without those that have none yet.

    Args:
        loggers: The trainer's loggers.
    """
    return dict(known for logger in loggers if (known := run_id(logger)))


def close(loggers: Sequence[Logger], *, failed: bool) -> None:
    """End every tracker's run, so that the next job of a sweep starts a new one."""
    for logger in loggers:
        # a tracker that cannot be closed must not hide how the run ended
        with suppress(Exception):
            enqueue(logger, partial(_end, status="failed" if failed else "success"))
    close_all(loggers)


def _end(logger: Any, status: str) -> None:
    logger.finalize(status)
    if ending := CLOSE_METHOD.get(type(logger).__name__):
        getattr(logger.experiment, ending)()


def _log_hyperparameters(logger: Logger, hyperparameters: dict[str, Any]) -> None:
    logger.log_hyperparams(hyperparameters)


@rank_zero_only
def _log_new_hyperparameters(logger: Any, hyperparameters: dict[str, Any]) -> None:
    """Leave out what an MLflow run holds: it refuses another value for a parameter, and all that come with it."""
    held = logger.experiment.get_run(logger.run_id).data.params
    flat = flatten_params(hyperparameters)
    logger.log_hyperparams({name: value for name, value in flat.items() if name not in held})


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


# The argument with which a tracker opens a run of its own again.
RESUME_ARGUMENT = {
    "MLFlowLogger": "run_id",
    "WandbLogger": "id",
    "CometLogger": "experiment_key",
    "AimLogger": "run_hash",
    "TensorBoardLogger": "version",
    "CSVLogger": "version",
}
HYPERPARAMETERS: dict[str, Callable[..., None]] = {"MLFlowLogger": _log_new_hyperparameters}
# Trackers without tags of their own (CSV, TensorBoard) find them among the hyperparameters.
TAGS: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "MLFlowLogger": _set_mlflow_tags,
    "WandbLogger": _set_wandb_tags,
    "CometLogger": _set_comet_tags,
    "AimLogger": _set_aim_tags,
}
# How a tracker's own run is ended; the others end with `finalize`.
CLOSE_METHOD = {"WandbLogger": "finish", "CometLogger": "end", "TensorBoardLogger": "close"}
