"""Install the checkpoint IO on a Trainer."""

from __future__ import annotations

from pathlib import Path

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.disk_space import expected_size, warn_of_little_space
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.runs.provenance import config_hash, versions

log = RankedLogger(__name__)


def install_checkpoint_io(trainer: Trainer, model: LightningModule, cfg: DictConfig) -> None:
    """Have a trainer write checkpoints as checkpoint_files.py does, and warn when the disk has little room for them.

    Strategies that bring a writer of their own (TPU, a plugin in the config) keep it.

    Args:
        trainer: The trainer of the run.
        model: What it will train.
        cfg: The run's config; `extras.async_checkpoints` asks for `AsyncVerifiedCheckpointIO`.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        kind = AsyncVerifiedCheckpointIO if cfg.extras.get("async_checkpoints") else VerifiedCheckpointIO
        trainer.strategy.checkpoint_io = kind({"config_hash": config_hash(cfg), "versions": versions()})
    if cfg.get("train") and not getattr(trainer, "fast_dev_run", False):
        for callback in trainer.checkpoint_callbacks:
            folder = str(getattr(callback, "dirpath", None) or cfg.paths.output_dir)
            if isinstance(callback, ModelCheckpoint) and "://" not in folder:
                warn_of_little_space(Path(folder), expected_size(model))
                return
