"""Data whose loading goes wrong in a worker after a while."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tests.support.toy_task import BATCH, Noisy


class Troubled(Dataset[Any]):
    """Examples of which one, late in the epoch, ends or stops the worker that makes it.

    Args:
        trouble: `killed` or `hung`.
    """

    def __init__(self, trouble: str) -> None:
        self.examples, self.trouble = Noisy(0.0), trouble

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 90 and get_worker_info() is not None:
            if self.trouble == "killed":
                time.sleep(0.5)  # what was made before is trained on first
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return self.examples[index]


class TroubledData(LightningDataModule):
    """Loads in order, with one worker.

    Args:
        trouble: What happens to the worker.
    """

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble

    def train_dataloader(self) -> DataLoader[Any]:
        """Return examples of which one is trouble."""
        return DataLoader(Troubled(self.trouble), batch_size=BATCH, num_workers=1)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return examples without trouble, loaded by the training process."""
        return DataLoader(Noisy(0.0), batch_size=BATCH)
