"""Trainers on the CPU that show nothing and log nowhere, and loaders as a test makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

import fulgurite


class MadeData(LightningDataModule):
    """Training data of whatever loaders a function makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make

    def train_dataloader(self) -> Any:
        """Make the loaders."""
        return self.make()


def quiet_trainer(callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    """Return a trainer on the CPU, without logger, progress bar and summary unless the settings say otherwise."""
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    arguments: dict[str, Any] = {**quiet, **settings}
    return Trainer(callbacks=list(callbacks), **arguments)


def fit_hardened(
    model: LightningModule,
    data: LightningDataModule,
    run: Path,
    callbacks: Sequence[Callback],
    *,
    ckpt_path: str | Path | None = None,
    switches: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """Train as a plain script does that `fulgurite.harden` makes resumable.

    Args:
        model: Is trained.
        data: Its loaders.
        run: Run directory.
        callbacks: Of the trainer.
        ckpt_path: Checkpoint to resume from.
        switches: Arguments of `harden`.
        settings: Arguments of the trainer.

    Returns:
        The trainer after its training.
    """
    trainer = quiet_trainer(callbacks, **settings)
    fulgurite.harden(trainer, data, run_dir=run, seed=1, handle_signals=False, **(switches or {}))
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer
