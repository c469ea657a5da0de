"""A generator that the data set and the model share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from tests.support.shapes.loaders import ROWS, Data, Points
from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use

RNG = np.random.default_rng(11)


class Jittered(Points):
    def __getitem__(self, index: int) -> Any:
        x, *rest = super().__getitem__(index)
        return (x + float(RNG.normal(0, 0.1)), *rest)


class JitteredData(Data):
    def train_dataloader(self) -> Any:
        return self.load(Jittered(), shuffle=True)


class DrawsEachEpoch(Net):
    """Draws a factor at the start of each epoch."""

    factor = 1.0

    def on_train_epoch_start(self) -> None:
        self.factor = float(RNG.uniform(0.5, 1.5))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        weighted: torch.Tensor = self.loss(batch) * self.factor
        return weighted


class UnseededSplit(Data):
    """Splits its data with a generator that nobody seeds."""

    def setup(self, stage: str) -> None:
        order = np.random.default_rng().permutation(ROWS + 24)
        points = Points(ROWS + 24)
        self.train, self.held_out = Subset(points, order[:ROWS].tolist()), Subset(points, order[ROWS:].tolist())

    def train_dataloader(self) -> Any:
        return self.load(self.train, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.load(self.held_out)


SHARED_DRAWS = [
    Shape(
        "a split of the data that is drawn without a seed",
        "state in attributes",
        data=use("shared_draws.UnseededSplit"),
        expect="named",
        line="split otherwise",
    ),
    Shape(
        "a generator that data set and model share",
        "state in attributes",
        data=use("shared_draws.JitteredData"),
        model=use("shared_draws.DrawsEachEpoch"),
    ),
    Shape(
        "a generator that data set and model share, at the end of an epoch",
        "state in attributes",
        data=use("shared_draws.JitteredData"),
        model=use("shared_draws.DrawsEachEpoch"),
        save_every=7,
        kill_after=8,
        amid_epoch=False,
    ),
]
