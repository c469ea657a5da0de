"""Optimizers and schedules of the template follow their rules."""

from __future__ import annotations

import math

import pytest
import torch

from src.models.optimizers import Yogi
from src.models.schedules import SquareRootLR, WarmupCosineLR


def test_yogi_follows_its_update_rule() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Yogi([weight], lr=0.1, betas=(0.9, 0.99), eps=1e-3)
    expected, mean, square = [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for step, gradient in enumerate([[0.5, -1.0], [-0.1, 3.0], [2.0, 0.0]], start=1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        for i, g in enumerate(gradient):
            mean[i] = 0.9 * mean[i] + 0.1 * g
            square[i] += 0.01 * math.copysign(1, g * g - square[i]) * g * g if g * g != square[i] else 0
            root = math.sqrt(square[i] / (1 - 0.99**step))
            expected[i] -= 0.1 * mean[i] / (1 - 0.9**step) / (root + 1e-3)
        assert weight.tolist() == pytest.approx(expected, rel=1e-5)


def test_yogi_refuses_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="out of range"):
        Yogi([torch.nn.Parameter(torch.ones(1))], lr=-1)


def rates(make: object, steps: int, **arguments: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    scheduler = make(optimizer, **arguments)  # type: ignore[operator]
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_square_root() -> None:
    assert rates(SquareRootLR, 4) == pytest.approx([0.3, 0.3 / 2**0.5, 0.3 / 3**0.5, 0.15])


def test_warmup_then_cosine_then_constant() -> None:
    found = rates(WarmupCosineLR, 30, max_steps=20, warmup_steps=5, last_factor=0.1)
    assert found[:5] == pytest.approx([0.0, 0.06, 0.12, 0.18, 0.24])
    assert found[5] == pytest.approx(0.3)
    assert found[12] == pytest.approx(0.03 + 0.27 * (1 + math.cos(math.pi * 7 / 15)) / 2)
    assert found[20:] == pytest.approx([0.03] * 10)
