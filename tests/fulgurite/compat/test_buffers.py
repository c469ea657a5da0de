"""Buffers take the shape of a checkpoint where it lists them as changed, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from fulgurite.checkpoints.matching import matching_state
from fulgurite.compat.buffers import CHANGED_BUFFERS, buffer_shapes
from fulgurite.core.errors import UserError


class Queue(LightningModule):
    def __init__(self, rows: int, center: torch.Tensor | None = None, mean: torch.Tensor | None = None) -> None:
        super().__init__()
        self.part = torch.nn.Linear(2, 2)
        self.part.register_buffer("queue", torch.ones(rows, 2))
        self.register_buffer("center", center)
        self.register_buffer("mean", mean)


def _saved() -> tuple[dict[str, Any], Queue]:
    model = Queue(3, center=torch.ones(2))
    return {"state_dict": model.state_dict()}, Queue(0, mean=torch.ones(1))


def test_a_changed_buffer_takes_the_shape_of_the_checkpoint() -> None:
    checkpoint, model = _saved()
    checkpoint[CHANGED_BUFFERS] = ["part.queue", "center", "mean", "missing"]
    model.load_state_dict(matching_state(checkpoint, model, Path("x.ckpt")))
    assert buffer_shapes(model) == {"part.queue": [3, 2], "center": [2], "mean": None}
    assert model.state_dict()["part.queue"].sum() == 6


def test_a_buffer_of_another_model_is_refused() -> None:
    checkpoint, model = _saved()
    with pytest.raises(UserError, match="was saved from another model"):
        matching_state(checkpoint, model, Path("x.ckpt"))
