"""What differs between the loggers of Lightning: resuming, hyperparameters, tags, closing."""

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
    """Return the `logger` group with the arguments that make each logger resume its own run.

    MLflow, W&B, Comet and Aim open the run with that ID. Steps from `step` on appear twice there; TensorBoard hides the
    first ones, and the CSV logger drops them.

    Args:
        cfg: The run's config; it is not changed.
        ids: `loggers` of run.json.
        step: Step of the checkpoint. This step and later ones are logged again.
    """
    group = copy.deepcopy(cfg).get("logger")  # a copy of the group alone would lose its parent
    if group is None:
        return None
    with open_dict(group):
        for name, config in group.items():
            if config is not None:
                _set_resume_arguments(str(name), config, ids.get(str(name)), step)
    assert isinstance(group, DictConfig)
    return group


def _set_resume_arguments(name: str, config: Any, logger_id: str | None, step: int) -> None:
    kind = str(config.get("_target_")).rpartition(".")[2] if isinstance(config, DictConfig) else ""
    if kind not in RESUME_ARGUMENT or config.get("_partial_"):
        log.info("%s: cannot resume a logger of this class. It starts with its config.", name)
        return
    argument = RESUME_ARGUMENT[kind]
    if logger_id and argument and config.get(argument) is None:
        config[argument] = int(logger_id) if argument == "version" and logger_id.isdigit() else logger_id
    if kind == "WandbLogger":
        config.setdefault("resume", "allow")
    elif kind == "TensorBoardLogger":
        config.purge_step = step
    elif kind == "CSVLogger":
        config._target_, config.first_step = "fulgurite.loggers.appending_csv.AppendingCSVLogger", step


def log_hyperparameters(loggers: Sequence[Logger], hyperparameters: Mapping[str, Any], tags: Sequence[str]) -> None:
    """Log the same hyperparameters to every logger, and the tags to those that support tags.

    Args:
        loggers: The trainer's loggers.
        hyperparameters: Plain resolved values without secrets.
        tags: The run's tags.
    """
    for logger in loggers:
        send = HYPERPARAMETERS.get(type(logger).__name__, _log_hyperparameters)
        content = {"call": "log_hyperparams", "params": dict(hyperparameters)}
        enqueue(logger, partial(send, hyperparameters=dict(hyperparameters)), content)
        if setter := TAGS.get(type(logger).__name__):
            enqueue(logger, partial(rank_zero_only(setter), tags=tags), {"call": "tags", "tags": list(tags)})


def run_ids(loggers: Sequence[Logger]) -> dict[str, str]:
    """Return the run ID of each logger by its name in the config, without loggers that have no ID yet."""
    return dict(found for logger in loggers if (found := run_id(logger)))


def close(loggers: Sequence[Logger], *, failed: bool) -> None:
    """Close the run of every logger, so that the next job of a sweep starts a new one.

    Args:
        loggers: Loggers of a run, guarded or not.
        failed: Whether the run failed.

    Example:
        >>> fulgurite.loggers.close(trainer.loggers, failed=False)
    """
    for logger in loggers:
        # a logger that cannot be closed must not hide how the run ended
        with suppress(Exception):
            enqueue(logger, partial(_close, status="failed" if failed else "success"))
    close_all(loggers)


def _close(logger: Any, status: str) -> None:
    logger.finalize(status)
    if method := CLOSE_METHOD.get(type(logger).__name__):
        getattr(logger.experiment, method)()


def _log_hyperparameters(logger: Logger, hyperparameters: dict[str, Any]) -> None:
    logger.log_hyperparams(hyperparameters)


@rank_zero_only
def _log_new_hyperparameters(logger: Any, hyperparameters: dict[str, Any]) -> None:
    """Log only new parameters: MLflow rejects a whole batch if one of them has another value already."""
    logged = logger.experiment.get_run(logger.run_id).data.params
    flat = flatten_params(hyperparameters)
    logger.log_hyperparams({name: value for name, value in flat.items() if name not in logged})


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


# The argument that makes a logger open an existing run.
RESUME_ARGUMENT = {
    "MLFlowLogger": "run_id",
    "WandbLogger": "id",
    "CometLogger": "experiment_key",
    "AimLogger": "run_hash",
    "TensorBoardLogger": "version",
    "CSVLogger": "version",
}
HYPERPARAMETERS: dict[str, Callable[..., None]] = {"MLFlowLogger": _log_new_hyperparameters}
# Other loggers (CSV, TensorBoard) have no tags; the hyperparameters include them.
TAGS: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "MLFlowLogger": _set_mlflow_tags,
    "WandbLogger": _set_wandb_tags,
    "CometLogger": _set_comet_tags,
    "AimLogger": _set_aim_tags,
}
# The method of `experiment` that closes the run; other loggers close in `finalize`.
CLOSE_METHOD = {"WandbLogger": "finish", "CometLogger": "end", "TensorBoardLogger": "close"}
