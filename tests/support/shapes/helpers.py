"""A helper module of a project: a generator and variables that data sets and models use."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

RNG = np.random.default_rng(3)
SEEN: dict[int, int] = {}
calls = 0


def mixup(x: torch.Tensor) -> torch.Tensor:
    share = float(RNG.beta(0.4, 0.4))
    return share * x + (1 - share) * x.flip(0)


def collate(rows: list[Any]) -> Any:
    x, y, i = (torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*rows, strict=True))
    return mixup(x), y, i


def fading(x: torch.Tensor) -> torch.Tensor:
    global calls
    calls += 1
    return x / calls


def less_often(x: torch.Tensor, i: int) -> torch.Tensor:
    SEEN[i] = SEEN.get(i, 0) + 1
    return x / SEEN[i]
