"""Send a picture to the loggers that show pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.loggers.guarded import enqueue


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
        enqueue(logger, partial(_send, name=name, path=Path(path), step=step), content)


@rank_zero_only
def _send(logger: Any, name: str, path: Path, step: int) -> None:
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
