"""Models as users write them, with content of their own in checkpoints."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

GROUP = "content of checkpoints"


class KeepsObjects(Net):
    def __init__(self, loss_fn: nn.Module, optimizer: Any, mode: str = "a") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.loss_fn, self.optimizer = loss_fn, optimizer

    def configure_optimizers(self) -> Any:
        return self.optimizer(params=self.parameters())


class KeepsValues(Net):
    def __init__(self) -> None:
        super().__init__()
        self.best = np.float32(9.0)
        self.last = deque([np.float32(0.0)], maxlen=4)
        self.seen = np.zeros(3, dtype=np.int32)
        self.folder = Path("here")
        self.start = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        loss = super().training_step(batch, batch_idx)
        assert loss is not None
        self.best = min(self.best, np.float32(loss.item()) * np.float32(0.9))
        self.last.append(np.float32(loss.item()))
        self.seen[batch_idx % 3] += 1
        self.folder = self.folder.parent / str(batch_idx)
        self.start = self.start + timedelta(seconds=1)
        return loss * float(self.best + sum(self.last) / len(self.last))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = [self.best, self.last, self.seen, self.folder, self.start]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best, self.last, self.seen, self.folder, self.start = checkpoint["mine"]


class KeepsAnObject(Net):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["words"] = {"tokenizer": Shape("a", "b")}


class KeepsTheHead(Net):
    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False
        self.backbone = nn.Linear(16, 16)
        nn.init.eye_(self.backbone.weight)
        nn.init.zeros_(self.backbone.bias)
        self.backbone.requires_grad_(False)

    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss([self.backbone(batch[0]), *batch[1:]])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if not name.startswith("backbone")}


OBJECTS = {
    "loss_fn": use("torch.nn.CrossEntropyLoss"),
    "optimizer": use("torch.optim.Adam", _partial_=True, lr=0.01),
}
SAVING = [
    Shape("save_hyperparameters() with a loss and a partial", GROUP, model=use("saving.KeepsObjects", **OBJECTS)),
    Shape("NumPy values, a deque, a Path and a datetime", GROUP, model=use("saving.KeepsValues")),
    Shape(
        "an object of your own in on_save_checkpoint",
        GROUP,
        model=use("saving.KeepsAnObject"),
        expect="refused",
        line="checkpoint: it could not be loaded again with these objects: words.tokenizer (Shape).",
    ),
    Shape("strict_loading=False, without the frozen backbone", GROUP, model=use("saving.KeepsTheHead")),
]
