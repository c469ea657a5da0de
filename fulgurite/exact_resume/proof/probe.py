"""Writes down what happens in a run, for a comparison with another one, and kills it where that is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

BATCHES, END = "batches-{rank}.jsonl", "end.ckpt"


class Probe(Callback):
    """Notes every batch and what the step made of it, and at the end everything that a checkpoint holds.

    Stand it behind the callbacks that change a batch. Checkpoints of the same step are saved after it.

    Args:
        folder: Gets `batches-<rank>.jsonl` and `end.ckpt`; a second start of the same run adds to the first file.
        kill_at: Optimizer steps after which each process of the run is killed as by `kill -9`; None lets it live.
    """

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.kill_at = kill_at
        self._batch = ""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look at the batch before the model can change it."""
        self._batch = digest(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write down batch and outputs; end the process when its step has come."""
        row = {
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "step": trainer.global_step,
            "examples": self._batch,
            "outputs": digest(outputs),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / BATCHES.format(rank=trainer.global_rank)).open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.kill_at is not None and trainer.global_step >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the run has become."""
        trainer.save_checkpoint(self.folder / END)


def digest(value: Any) -> str:
    """Return 16 hex digits that stand for the content of nested tensors, arrays and plain values."""
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()[:16]


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield repr(name).encode()
            yield from _parts(part)
    elif isinstance(value, (list, tuple)):
        yield str(len(value)).encode()
        for part in value:
            yield from _parts(part)
    elif isinstance(value, (str, bytes, int, float, complex, bool, type(None))):
        yield repr(value).encode()
    else:  # the repr of an object may hold its address
        yield type(value).__qualname__.encode()
        yield from _parts(vars(value) if hasattr(value, "__dict__") else None)
