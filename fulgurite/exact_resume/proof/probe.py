"""Record the batches and the final state of a run, and kill it at a chosen step."""

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
    """Records digests of every batch, its examples and its step outputs, and a checkpoint at the end.

    Place it after callbacks that change a batch. Checkpoints of the same step are saved after this callback ran.

    Args:
        folder: Folder of `batches-<rank>.jsonl`, to which a resumed run appends, and of `end.ckpt`.
        kill_at: Optimizer steps after which each process kills itself with SIGKILL; None for never.
    """

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.kill_at = kill_at
        self._batch_digest = ""
        self._examples: dict[str, list[str]] = {}
        self._tensors: dict[str, str] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compute the digest before the model can change the batch."""
        self._batch_digest = digest(batch)
        tensors = dict(_tensors(batch, ""))
        self._examples = _digests_of_examples(tensors)
        self._tensors = {path: digest(tensor) for path, tensor in tensors.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append the digests of batch and outputs, and kill the process at its step."""
        row = {
            "epoch": trainer.current_epoch,
            "batch": batch_idx,
            "step": trainer.global_step,
            "content": self._batch_digest,
            "outputs": digest(outputs),
            "examples": self._examples,
            "tensors": self._tensors,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / BATCHES.format(rank=trainer.global_rank)).open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.kill_at is not None and trainer.global_step >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        trainer.save_checkpoint(self.folder / END)


def _tensors(batch: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a nested batch that have rows, each with its path."""
    if isinstance(batch, Mapping):
        for name, part in batch.items():
            yield from _tensors(part, f"{path}.{name}")
    elif isinstance(batch, (list, tuple)):
        for number, part in enumerate(batch):
            yield from _tensors(part, f"{path}.{number}")
    elif isinstance(batch, (torch.Tensor, np.ndarray)) and batch.ndim > 0:
        yield path, batch


def _digests_of_examples(tensors: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the digests of the examples of each loader: of the rows of tensors that lie side by side."""
    groups: dict[str, list[Any]] = {}
    for path, tensor in tensors.items():
        groups.setdefault(f"{path.rpartition('.')[0]} of {len(tensor)}", []).append(tensor)
    examples: dict[str, list[str]] = {}
    for name, group in groups.items():
        examples.setdefault(name.rpartition(" of ")[0], []).extend(digest(rows) for rows in zip(*group, strict=True))
    return examples


def digest(value: Any) -> str:
    """Return 16 hex digits of the sha256 of nested tensors, arrays and plain values."""
    sha = hashlib.sha256()
    for part in _bytes_of(value):
        sha.update(part)
    return sha.hexdigest()[:16]


def _bytes_of(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield repr(name).encode()
            yield from _bytes_of(part)
    elif isinstance(value, (list, tuple)):
        yield str(len(value)).encode()
        for part in value:
            yield from _bytes_of(part)
    elif isinstance(value, (str, bytes, int, float, complex, bool, type(None))):
        yield repr(value).encode()
    else:  # the repr of an object may contain its address
        yield type(value).__qualname__.encode()
        yield from _bytes_of(vars(value) if hasattr(value, "__dict__") else None)
