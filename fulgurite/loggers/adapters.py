"""What differs between the loggers of Lightning: resuming, hyperparameters, tags, pictures, closing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from fulgurite.compat.lightning import flatten_params
from fulgurite.core.formatting import parse_count
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.loggers.guarded import SERVICES, close_all, enqueue

log = RankedLogger(__name__)


def resume_loggers(cfg: DictConfig, ids: Mapping[str, str], step: int) -> DictConfig | None:
    """Return the `logger` group with the arguments that make each logger resume its own run.

    MLflow, W&B, Comet and Aim open the run with the ID that run.json has in `loggers`. Steps from `step`, the
    loggers' step at the save, on appear twice there; TensorBoard hides the first ones, and the CSV logger drops them.
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
    if logger_id and config.get(argument) is None:
        number = parse_count(logger_id) if argument == "version" else None
        config[argument] = logger_id if number is None else number
    if kind == "WandbLogger":
        config.setdefault("resume", "allow")
    elif kind == "TensorBoardLogger":
        config.purge_step = step
    elif kind == "CSVLogger":
        config._target_, config.first_step = "fulgurite.loggers.metrics_csv.AppendingCSVLogger", step


def log_hyperparameters(loggers: Sequence[Logger], hyperparameters: Mapping[str, Any], tags: Sequence[str]) -> None:
    """Log the same plain values without secrets to every logger, and the tags to loggers with tags."""
    params = dict(hyperparameters)
    for logger in loggers:
        is_mlflow = type(logger).__name__ == "MLFlowLogger"
        send = partial(_log_new, params=params) if is_mlflow else methodcaller("log_hyperparams", params)
        enqueue(logger, send, {"call": "log_hyperparams", "params": params})
        if type(logger).__name__ in SERVICES:  # CSV and TensorBoard have no tags; the hyperparameters include them
            enqueue(logger, partial(_log_tags, tags=tags), {"call": "tags", "tags": list(tags)})


def log_image(loggers: Sequence[Logger], name: str, path: str | Path, step: int) -> None:
    """Send an image file to TensorBoard, W&B, MLflow, Comet and Aim; other loggers show no images.

    Args:
        loggers: Loggers of the trainer. A guarded one cannot stop the run.
        name: Name of the image, the same at each step.
        path: A PNG file, which must not change until the loggers are closed.
        step: Optimizer steps so far.

    Example:
        >>> fulgurite.loggers.log_image(trainer.loggers, "samples", "run/samples.png", trainer.global_step)
    """
    content = {"call": "log_image", "name": name, "path": str(path), "step": step}
    for logger in loggers:
        enqueue(logger, partial(_log_image, name=name, path=Path(path), step=step), content)


def close(loggers: Sequence[Logger], *, failed: bool) -> None:
    """Close the run of every logger, guarded or not, so that the next job of a sweep starts a new one.

    Example:
        >>> fulgurite.loggers.close(trainer.loggers, failed=False)
    """
    for logger in loggers:
        with suppress(Exception):  # a logger that cannot be closed must not hide how the run ended
            enqueue(logger, partial(_close, status="failed" if failed else "success"))
    close_all(loggers)


def _close(logger: Any, status: str) -> None:
    logger.finalize(status)
    if method := CLOSE_METHOD.get(type(logger).__name__):
        getattr(logger.experiment, method)()


@rank_zero_only
def _log_new(logger: Any, params: dict[str, Any]) -> None:
    """Log only new parameters: MLflow rejects a whole batch if one of them has another value already."""
    logged = logger.experiment.get_run(logger.run_id).data.params
    logger.log_hyperparams({name: value for name, value in flatten_params(params).items() if name not in logged})


@rank_zero_only
def _log_tags(logger: Any, tags: Sequence[str]) -> None:
    match type(logger).__name__:
        case "MLFlowLogger":
            for tag in tags:
                logger.experiment.set_tag(logger.run_id, tag, "true")
        case "WandbLogger":
            logger.experiment.tags = tuple(tags)
        case "CometLogger":
            logger.experiment.add_tags(list(tags))
        case "AimLogger":
            for tag in tags:
                logger.experiment.add_tag(tag)


@rank_zero_only
def _log_image(logger: Any, name: str, path: Path, step: int) -> None:
    match type(logger).__name__:
        case "TensorBoardLogger":
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        case "WandbLogger":
            logger.log_image(name, [str(path)], step=step)
        case "MLFlowLogger":
            logger.experiment.log_artifact(logger.run_id, str(path), "pictures")
        case "CometLogger":
            logger.experiment.log_image(str(path), name=name, step=step)
        case "AimLogger":
            from aim import Image as AimImage

            logger.experiment.track(AimImage(str(path)), name=name, step=step)


# The argument that makes a logger open an existing run.
RESUME_ARGUMENT = {
    "MLFlowLogger": "run_id",
    "WandbLogger": "id",
    "CometLogger": "experiment_key",
    "AimLogger": "run_hash",
    "TensorBoardLogger": "version",
    "CSVLogger": "version",
}
# The method of `experiment` that closes the run; other loggers close in `finalize`.
CLOSE_METHOD = {"WandbLogger": "finish", "CometLogger": "end", "TensorBoardLogger": "close"}
