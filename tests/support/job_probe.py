"""A callback that records the settings and the environment of each rank of a job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class JobProbe(Callback):
    """Writes `<job>-<rank>.json` with seed, learning rate, first random number, and the environment before the job.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.environment = dict(os.environ)
        self.in_group = torch.distributed.is_initialized()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        found = {
            "seed": os.environ["PL_GLOBAL_SEED"],
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "weight": float(next(pl_module.parameters()).flatten()[0]),
            "environment": self.environment,
            "in_group": self.in_group,
        }
        job = Path(trainer.default_root_dir).name
        (self.folder / f"{job}-{trainer.global_rank}.json").write_text(json.dumps(found))
