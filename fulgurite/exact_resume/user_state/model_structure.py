"""Name what hooks change of a model's structure while it trains: its config makes the model of a resumed run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch

from fulgurite.core.exactness import name_inexact

MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def model_structure(model: torch.nn.Module) -> dict[str, str]:
    """Return the class of each module, the number of its hooks, and with what each weight is shared, by name."""
    structure: dict[str, str] = {}
    for path, module in model.named_modules():
        if path:
            # a lazy module changes its class in the first batch
            structure[path] = (getattr(type(module), "cls_to_become", None) or type(module)).__qualname__
        weights = module.parameters(recurse=False)
        hooks = chain(
            (getattr(module, name, None) for name in MODULE_HOOKS),
            (getattr(weight, name, None) for weight in weights for name in WEIGHT_HOOKS),
        )
        structure[f"{path} hooks".strip()] = f"{sum(len(each or ()) for each in hooks)} hooks"
    first: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        shared = first.setdefault(id(weight), name)
        structure[name] = f"weight of {shared}" if shared != name else "weight of its own"
    return structure


def name_changed_structure(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Name each part that both have and that differs."""
    for name in [name for name in before if now.get(name, before[name]) != before[name]]:
        name_inexact(
            f"model.{name}",
            f"code changed it from {before[name]} to {now[name]} while the run trained, and a resumed run makes the "
            "model of the config. Set it in __init__ or in configure_model, or let the run finish without a stop.",
        )
