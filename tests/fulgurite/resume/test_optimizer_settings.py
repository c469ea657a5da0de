"""Settings and states that replace those of a checkpoint, where a hook of the interrupted run added weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim.lr_scheduler import ExponentialLR

from fulgurite.resume.optimizer_settings import OverrideRestoredSettings


def resumed(reset: list[str], apply: list[str]) -> tuple[torch.optim.Optimizer, ExponentialLR]:
    """Return what a resumed run trains with: a learning rate of 0.1 was built, the checkpoint has 0.5 and a group."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.Adam(weights[:1], lr=0.1)
    scheduler = ExponentialLR(optimizer, 0.9)
    config = SimpleNamespace(scheduler=scheduler)
    trainer: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[config], callbacks=[])
    settings, model = OverrideRestoredSettings(reset, apply), LightningModule()
    settings.setup(trainer, model, "fit")
    settings.on_fit_start(trainer, model)
    optimizer.add_param_group({"params": weights[1:], "lr": 0.01, "initial_lr": 0.01})
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler.base_lrs = [0.5, 0.01]
    for weight in weights:
        weight.grad = torch.ones(2)
    optimizer.step()
    settings.on_train_start(trainer, model)
    return optimizer, scheduler


@pytest.mark.parametrize(
    ("reset", "apply", "rates", "base", "num_states"),
    [
        ([], ["model.optimizer.lr"], [0.1, 0.01], [0.1, 0.01], 2),
        (["optimizer"], [], [0.1, 0.01], [0.5, 0.01], 0),
        (["scheduler"], [], [0.5, 0.01], [0.1], 2),
        ([], ["model.optimizer.weight_decay"], [0.5, 0.01], [0.5, 0.01], 2),
    ],
)
def test_a_group_that_a_hook_added_keeps_its_settings(
    reset: list[str], apply: list[str], rates: list[float], base: list[float], num_states: int
) -> None:
    optimizer, scheduler = resumed(reset, apply)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert scheduler.base_lrs == base
    assert len(optimizer.state) == num_states
