"""Install the checkpoint IO on a Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.content import PlainCheckpoints
from fulgurite.checkpoints.disk_space import expected_size, warn_if_disk_full_soon
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.relocation import RelocateCheckpoints


def install_checkpoint_io(trainer: Trainer, metadata: Mapping[str, Any], *, asynchronous: bool = False) -> None:
    """Make a trainer write verified checkpoints of plain values.

    A strategy with a CheckpointIO of its own (TPU, a plugin in the config) keeps it.
    """
    vars(trainer)["callbacks"][:0] = [PlainCheckpoints(), RelocateCheckpoints()]
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        kind = AsyncVerifiedCheckpointIO if asynchronous else VerifiedCheckpointIO
        trainer.strategy.checkpoint_io = kind(dict(metadata))


def warn_if_disk_is_small(trainer: Trainer, model: LightningModule, run_dir: Path) -> None:
    """Warn when the disk has little space for the checkpoints of a model."""
    if getattr(trainer, "fast_dev_run", False):
        return
    for callback in trainer.checkpoint_callbacks:
        folder = str(getattr(callback, "dirpath", None) or run_dir)
        if isinstance(callback, ModelCheckpoint) and "://" not in folder:
            warn_if_disk_full_soon(Path(folder), expected_size(model))
            return
