"""After `lr_scale=k` the learning rate is k times the unedited schedule, for every scheduler of torch and others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.swa_utils import SWALR

from fulgurite.live.document.history import read_entries
from fulgurite.live.schedules import scale, slots_of, why_not_scalable
from tests.support.live import Task, run

STEPS, AT, FACTOR = 32, 11, 0.1


def sequence(optimizer: Optimizer) -> Any:
    parts = [
        torch_schedulers.LinearLR(optimizer, 0.1, total_iters=6),
        torch_schedulers.CosineAnnealingLR(optimizer, 20, eta_min=0.001),
    ]
    return torch_schedulers.SequentialLR(optimizer, parts, [16])  # after the edit


def chain(optimizer: Optimizer) -> Any:
    parts = [torch_schedulers.ConstantLR(optimizer, 0.5, 14), torch_schedulers.ExponentialLR(optimizer, 0.9)]
    return torch_schedulers.ChainedScheduler(parts, optimizer)


MAKERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: torch_schedulers.LambdaLR(o, lambda step: 1 / (step + 1)),
    "MultiplicativeLR": lambda o: torch_schedulers.MultiplicativeLR(o, lambda step: 0.95),
    "StepLR": lambda o: torch_schedulers.StepLR(o, 5, 0.5),
    "MultiStepLR": lambda o: torch_schedulers.MultiStepLR(o, [4, 15, 20], 0.5),
    "ConstantLR": lambda o: torch_schedulers.ConstantLR(o, 0.3, 16),
    "LinearLR": lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=20),
    "ExponentialLR": lambda o: torch_schedulers.ExponentialLR(o, 0.9),
    "SequentialLR": sequence,
    "ChainedScheduler": chain,
    "PolynomialLR": lambda o: torch_schedulers.PolynomialLR(o, 28, 2.0),
    "CosineAnnealingLR": lambda o: torch_schedulers.CosineAnnealingLR(o, 20, eta_min=0.001),
    "CosineAnnealingWarmRestarts": lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 7, 2, eta_min=0.001),
    "CyclicLR": lambda o: torch_schedulers.CyclicLR(o, 0.001, 0.1, 5, cycle_momentum=False),
    "OneCycleLR": lambda o: torch_schedulers.OneCycleLR(o, [0.1, 0.2], total_steps=STEPS + 1),
    "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=20),
}


def rates(make: Any, factors: dict[int, float], *, every: int = 1) -> list[list[float]]:
    """Return the rates of two groups at each step, which are multiplied before some steps.

    Args:
        make: Makes the scheduler of an optimizer.
        factors: By step.
        every: Steps between two of the scheduler.
    """
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups: list[dict[str, Any]] = [{"params": weights[0]}, {"params": weights[1], "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, lr=0.01)
    scheduler = make(optimizer)
    is_plateau = isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)
    config = SimpleNamespace(scheduler=scheduler, reduce_on_plateau=is_plateau)
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[config], lightning_module=torch.nn.Module()
    )
    found = []
    for step in range(STEPS):
        if step in factors:
            assert why_not_scalable(trainer, factors[step]) == ""
            scale(slots_of(trainer), factors[step])
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step(1.0) if is_plateau else scheduler.step()
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_a_scaled_schedule_keeps_its_shape(name: str) -> None:
    plain = rates(MAKERS[name], {})
    edited = rates(MAKERS[name], {AT: FACTOR, AT + 10: 1 / FACTOR})
    assert len(plain) == len(edited) == STEPS
    assert edited[:AT] == plain[:AT]
    for step in range(AT, STEPS):
        factor = FACTOR if step < AT + 10 else 1.0
        assert edited[step] == pytest.approx([factor * rate for rate in plain[step]], rel=1e-9), step


def test_a_plateau_keeps_its_shape_down_to_its_smallest_rate() -> None:
    def make(optimizer: Optimizer) -> Any:  # of 0.01: 0.001, then the smallest; an unscaled eps refuses that
        return torch_schedulers.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=0, min_lr=[2e-4, 1e-4], eps=5e-4, threshold=0.0
        )

    plain = rates(make, {}, every=8)
    edited = rates(make, {AT: FACTOR}, every=8)
    assert plain[-1] == [2e-4, 2e-4]
    for step in range(AT, STEPS):
        assert edited[step] == pytest.approx([FACTOR * rate for rate in plain[step]], rel=1e-9), step


def test_every_scheduler_of_torch_is_tried() -> None:
    kinds = {
        name
        for name, kind in vars(torch_schedulers).items()
        if isinstance(kind, type)
        and issubclass(kind, torch_schedulers.LRScheduler)
        and name not in {"LRScheduler", "_LRScheduler"}
    }
    assert kinds <= {*MAKERS, "ReduceLROnPlateau"}
    assert len(kinds) >= 15


class Warmup(torch_schedulers.LRScheduler):
    """A scheduler of a user that derives the rate from an attribute with `lr` in its name."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.warmup_start_lr = 0.001
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        return [self.warmup_start_lr + (rate - self.warmup_start_lr) * self.last_epoch / 40 for rate in self.base_lrs]


class Fixed(torch_schedulers.LRScheduler):
    """A scheduler of a user whose rates nothing names."""

    def get_lr(self) -> list[Any]:
        return [0.01 / (1 + self.last_epoch) for _ in self.base_lrs]


def test_a_scheduler_of_a_user_keeps_its_shape() -> None:
    plain, edited = rates(Warmup, {}), rates(Warmup, {AT: FACTOR})
    assert edited[-1] == pytest.approx([FACTOR * rate for rate in plain[-1]], rel=1e-9)


def test_a_scheduler_that_would_lose_its_shape_is_refused(tmp_path: Path) -> None:
    _, live, trace = run(tmp_path, Task(Fixed), {AT: {"lr_scale": FACTOR}})
    [entry] = read_entries(tmp_path / "live.jsonl")
    [reason] = entry["refused"]
    assert reason == (
        "lr_scale=0.1: Fixed keeps a learning rate in an attribute without `lr` in its name, so it would lose its "
        "shape. Name the attribute with lr, e.g. warmup_lr, or set the optimizer's lr in on_live_change."
    )
    assert trace.rates[AT] == pytest.approx([0.01 / (AT + 1)] * 2)
    assert live.document == {}


def test_lr_sets_the_rate_now_and_the_schedule_continues_in_proportion(tmp_path: Path) -> None:
    edits = {AT: {"lr": 0.003}, 20: {"lr_scale": 0.5}}
    _, _, trace = run(tmp_path, Task(MAKERS["PolynomialLR"]), edits, max_epochs=3)
    plain = rates(MAKERS["PolynomialLR"], {})
    assert trace.rates[AT][0] == 0.003  # to the last digit
    factor = 0.003 / plain[AT][0]
    assert trace.rates[19] == pytest.approx([factor * rate for rate in plain[19]], rel=1e-9)
    assert trace.rates[23] == pytest.approx([0.5 * rate for rate in plain[23]], rel=1e-9)  # of the unedited schedule


def test_a_one_cycle_goes_past_its_end_with_its_last_rate(tmp_path: Path) -> None:
    def make(optimizer: Optimizer) -> Any:
        return torch_schedulers.OneCycleLR(optimizer, 0.1, total_steps=STEPS)

    edited = run(tmp_path, Task(make), {AT: {"max_epochs": 6}})[2].rates
    assert len(edited) == 6 * 8
    assert edited[STEPS - 1] == edited[-1] == pytest.approx([0.1 / 25 / 1e4] * 2)


def test_a_rate_in_a_tensor_is_scaled_in_place() -> None:
    rate = torch.tensor(0.01)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=rate)
    config = SimpleNamespace(scheduler=torch_schedulers.StepLR(optimizer, 5, 0.5), reduce_on_plateau=False)
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[config], lightning_module=torch.nn.Module()
    )
    undo = scale(slots_of(trainer), FACTOR)
    assert optimizer.param_groups[0]["lr"] is rate  # where a captured graph reads it
    assert rate.item() == pytest.approx(0.001)
    assert float(config.scheduler.base_lrs[0]) == pytest.approx(0.001)
    undo()
    assert rate.item() == pytest.approx(0.01)
