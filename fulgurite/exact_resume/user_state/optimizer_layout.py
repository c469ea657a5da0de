"""Find what code of the user changes of optimizers and schedulers while they train, beside their states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.optim.lr_scheduler import LRScheduler

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.structure.model_structure import hooks_of
from fulgurite.exact_resume.user_state.loader_owners import Owner

Layout = list[dict[str, Any]]  # by optimizer


def optimizer_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the optimizers, with the attributes that are no part of their state, their hooks, and the schedulers."""
    remedy = "Save it in state_dict and load_state_dict of the {}"
    for number, optimizer in enumerate(trainer.optimizers):
        kind: type = type(optimizer)
        is_torchs = kind.__module__.startswith("torch.")
        base = _optimizer_attributes() | {name for name in vars(optimizer) if is_torchs and name.startswith("_")}
        saves = not is_torchs and getattr(kind, "state_dict", None) is not torch.optim.Optimizer.state_dict
        values, key = vars(optimizer), f"optimizer {number}"
        yield Owner(key, kind.__name__, values, base, remedy.format("optimizer"), saves)
        hooks = dict(hooks_of(optimizer))
        yield Owner(f"{key} hooks", kind.__name__, hooks, frozenset(), remedy.format("optimizer"), has_fixed_items=True)
    for number, config in enumerate(trainer.lr_scheduler_configs):
        scheduler: Any = config.scheduler
        if hasattr(scheduler, "__dict__"):
            values, kind = vars(scheduler), type(scheduler)
            state: Any = scheduler.state_dict()
            # a function, such as that of LambdaLR, is in no state
            saved = {name for name, value in state.items() if value is values.get(name)} | {"optimizer"}
            # checkpoints leave a scheduler out that is inside another one
            saved -= {name for name in saved if isinstance(values.get(name), LRScheduler)}
            key = f"scheduler {number} {kind.__qualname__}"
            yield Owner(key, kind.__name__, values, frozenset(saved), remedy.format("scheduler"))


@cache
def _optimizer_attributes() -> frozenset[str]:
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)]))) | {"step"}  # a scheduler wraps the method


def optimizer_layout(trainer: Trainer, weights: Iterable[tuple[str, torch.Tensor]]) -> Layout:
    """Return the class of each optimizer, and the names of the weights in its groups; shapes of weights elsewhere."""
    names = {id(weight): name for name, weight in weights}
    return [
        {
            "kind": type(optimizer).__qualname__,
            "groups": [
                # a lazy weight of the model has no shape before the first batch
                [names.get(id(weight)) or list(weight.shape) for weight in group["params"]]
                for group in optimizer.param_groups
            ],
        }
        for optimizer in trainer.optimizers
    ]


def name_replaced_optimizers(start: Layout, now: Layout) -> None:
    """Name optimizers of another class than at the start of `fit`, which a resumed run does not make."""
    before, after = (", ".join(each["kind"] for each in layout) for layout in (start, now))
    if before != after:
        name_inexact(
            "configure_optimizers",
            f"a hook replaced {before} by {after}, which a resumed run does not have: it is refused or trains with "
            f"{before}. Return {after} from configure_optimizers, or let the run finish without a stop.",
        )


def align_groups(trainer: Trainer, saved: Layout) -> None:
    """Give the optimizers the parameter groups of the checkpoint, before Lightning restores their states.

    A weight that is not part of the model, because a hook replaced its module, becomes a placeholder without gradient.
    """
    weights = dict(trainer.lightning_module.named_parameters())
    present = optimizer_layout(trainer, weights.items())
    for optimizer, before, now in zip(trainer.optimizers, saved, present, strict=False):
        known = all(name in weights for names in before["groups"] for name in names if isinstance(name, str))
        if known and before["kind"] == now["kind"] and before["groups"] != now["groups"]:
            _set_groups(optimizer, [[_weight(name, weights) for name in names] for names in before["groups"]])


def _weight(name: str | list[int], weights: Mapping[str, torch.nn.Parameter]) -> torch.nn.Parameter:
    return weights[name] if isinstance(name, str) else torch.nn.Parameter(torch.zeros(name))


def _set_groups(optimizer: torch.optim.Optimizer, groups: list[list[torch.nn.Parameter]]) -> None:
    present = list(optimizer.param_groups)
    optimizer.param_groups.clear()
    for number, weights in enumerate(groups):
        options = dict(present[number]) if number < len(present) else {}
        has_names = "param_names" in (present[0] if present else {})
        params = [(str(position), weight) for position, weight in enumerate(weights)] if has_names else weights
        optimizer.add_param_group({**options, "params": params})
