"""Load the state of an optimizer in the types in which it was saved.

`torch.optim.Optimizer.load_state_dict` (torch 2.13) casts the state of a floating-point weight to the weight's dtype: a
momentum in float64 is rounded, a mask or a counter becomes a float, and a deque loses its maximum length. torch has no
argument against it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import device
    from torch.optim import Optimizer

RESET = "_fulgurite_reset"  # attribute of a trainer: `optimizer` and `scheduler`, where the user resets their state
MARK = "keeps_types"  # attribute of a wrapped method


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `state_dict` of an optimizer returned, without a cast."""
    optimizer.load_state_dict(dict(state))
    restore_types(optimizer, state)


def restore_types(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Replace what `load_state_dict` cast by what was saved, on the device of what it made."""
    positions = [position for group in state.get("param_groups", ()) for position in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for position, weight in zip(positions, weights, strict=False):
        if position in state["state"] and weight in optimizer.state:
            saved = state["state"][position]
            optimizer.state[weight] = _in_saved_type(optimizer.state[weight], saved, weight.device)


def keep_types_of_states(trainer: Trainer) -> None:
    """Make a trainer restore the optimizer states of a checkpoint without a cast."""
    from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

    load = trainer.strategy.load_optimizer_state_dict
    # the others shard the states, and have checkpoints of their own form
    if hasattr(load, MARK) or not isinstance(trainer.strategy, (DDPStrategy, SingleDeviceStrategy)):
        return

    @wraps(load)
    def load_optimizer_state_dict(checkpoint: Mapping[str, Any]) -> None:
        load(checkpoint)
        for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=False):
            restore_types(optimizer, state)

    setattr(load_optimizer_state_dict, MARK, True)
    vars(trainer.strategy)["load_optimizer_state_dict"] = load_optimizer_state_dict


def _in_saved_type(loaded: Any, saved: Any, target: device) -> Any:
    import torch

    if isinstance(saved, torch.Tensor):
        if not isinstance(loaded, torch.Tensor):
            return saved.to(target, copy=True)
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device, copy=True)
    if isinstance(saved, dict):
        parts = loaded if isinstance(loaded, dict) else {}
        restored = copy(saved)
        restored.update({key: _in_saved_type(parts.get(key), part, target) for key, part in saved.items()})
        return restored
    if isinstance(saved, (list, tuple, deque)):
        present = list(loaded) if isinstance(loaded, type(saved)) and len(loaded) == len(saved) else [None] * len(saved)
        items = [_in_saved_type(item, part, target) for item, part in zip(present, saved, strict=True)]
        return deque(items, saved.maxlen) if isinstance(saved, deque) else type(saved)(items)
    return saved


def extend_one_cycle(scheduler: Any, steps: float) -> dict[str, Any] | None:
    """Let a OneCycleLR keep its last learning rate after its last step, where torch 2.13 raises an error.

    `steps` is the number of steps that it takes, infinity without a limit.

    Returns:
        The attributes before; None where nothing had to change.
    """
    from torch.optim.lr_scheduler import OneCycleLR

    if not isinstance(scheduler, OneCycleLR) or steps <= scheduler.total_steps:
        return None
    before = {"total_steps": scheduler.total_steps, "_schedule_phases": scheduler._schedule_phases}
    last = dict(scheduler._schedule_phases[-1])
    last.update(end_step=float("inf"), start_lr=last["end_lr"], start_momentum=last["end_momentum"])
    is_extended = scheduler._schedule_phases[-1]["end_step"] == float("inf")
    vars(scheduler).update(
        total_steps=int(min(steps, sys.maxsize)),
        _schedule_phases=[*scheduler._schedule_phases, *([] if is_extended else [last])],
    )
    return before


def shared_parts(trainer: Trainer) -> list[tuple[Any, Any, str, Any]]:
    """Return the parameter groups and states that an optimizer shares with one that it wraps, as Lookahead does.

    Returns:
        Optimizer, wrapped optimizer, name of the attribute, and its value.
    """
    from torch.optim import Optimizer

    return [
        (optimizer, inner, name, getattr(optimizer, name))
        for optimizer in trainer.optimizers
        for inner in vars(optimizer).values()
        if isinstance(inner, Optimizer)
        for name in ("param_groups", "state")
        if getattr(optimizer, name) is getattr(inner, name)
    ]


def share_again(shared: list[tuple[Any, Any, str, Any]]) -> None:
    """Let optimizers share what `shared_parts` found, after a `load_state_dict` gave one of them new objects."""
    for optimizer, inner, name, before in shared:
        new = getattr(optimizer, name)
        new = getattr(inner, name) if new is before else new
        setattr(optimizer, name, new)
        setattr(inner, name, new)
