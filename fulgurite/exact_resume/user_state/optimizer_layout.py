"""Save which weights each parameter group of an optimizer has, since code of the user may change it while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from fulgurite.core.exactness import name_inexact

Layout = list[dict[str, Any]]  # by optimizer


def optimizer_layout(trainer: Trainer) -> Layout:
    """Return the class of each optimizer, and the names of the weights in its groups; shapes of weights elsewhere."""
    names = {id(weight): name for name, weight in trainer.lightning_module.named_parameters()}
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
    for optimizer, before, now in zip(trainer.optimizers, saved, optimizer_layout(trainer), strict=False):
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
