"""A callback that records a sweep job's slot, delays it, and leaves traces for the next job."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

TRACE = "FULGURITE_TEST_TRACE"


class SlotProbe(Callback):
    """Writes `slot.json` into the folder it is given.

    Args:
        folder: The run's directory.
        seconds: To sleep before training.
        hurry: File; until it exists, each step sleeps for a tenth of a second.
    """

    def __init__(self, folder: str, seconds: float = 0.0, hurry: str | None = None) -> None:
        self.folder, self.seconds, self.hurry = Path(folder), seconds, hurry

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the slot, leave a trace, and sleep."""
        if not trainer.is_global_zero:
            return
        seen = {
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "cores": sorted(os.sched_getaffinity(0)),
            "threads": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "trace": os.environ.get(TRACE),
            "left": [name for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR") if name in os.environ],
        }
        os.environ[TRACE] = str(self.folder)
        time.sleep(self.seconds)
        (self.folder / "slot.json").write_text(json.dumps(seen))

    def on_train_batch_end(self, *_: Any) -> None:
        """Sleep until the file exists."""
        if self.hurry and not Path(self.hurry).exists():
            time.sleep(0.1)


def nap(cfg: DictConfig) -> float:
    """Sleep for a second, record when, and return the seed."""
    start = time.monotonic()
    time.sleep(1)
    Path(HydraConfig.get().runtime.output_dir, "nap.json").write_text(json.dumps([start, time.monotonic()]))
    return float(cfg.seed)
