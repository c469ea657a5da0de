"""Find what the optimizers and schedulers of torch reject before the model makes them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fulgurite.config.target_policy import locate
from fulgurite.config.view import ConfigView, nodes
from fulgurite.engine.components.causes import rejection

_OF_DEVICE = ("fused", "foreach", "capturable")  # torch checks them against the device of the weights
_OF_ONE = ("milestones", "betas")  # lists that are not one value for each parameter group


def rejected_optimizers(cfg: DictConfig) -> Iterator[str]:
    """Yield the arguments of the model's partial optimizers and schedulers that torch rejects for any model."""
    view = ConfigView(cfg)
    for key, block in nodes(view.written.get("model"), "model"):
        if not isinstance(block, dict) or "[" in key:
            continue
        target = block.get("_target_")
        if not block.get("_partial_") or not isinstance(target, str) or not target.startswith("torch.optim."):
            continue
        given = view.resolve({name: value for name, value in block.items() if not str(name).startswith("_")}, key)
        error = _try(locate(target), given)
        line = rejection(error, key, given) if error is not None else ""
        if line.startswith(f"{key}."):  # it names an argument that is given: the model may pass others
            yield line


def _try(kind: Any, given: dict[str, Any]) -> Exception | None:
    """Return the error of a constructor for one weight; None if it cannot be tried, or accepts its arguments."""
    plain = {name: value for name, value in given.items() if name not in _OF_DEVICE}
    if not inspect.isclass(kind) or not all(_is_plain(name, value) for name, value in plain.items()):
        return None
    weight = torch.nn.Parameter(torch.zeros(1))
    first: Any = [weight] if issubclass(kind, Optimizer) else SGD([weight], lr=0.1, momentum=0.9)
    if not issubclass(kind, (Optimizer, LRScheduler)):
        return None
    try:
        inspect.signature(kind).bind(first, **plain)
    except TypeError:  # the model passes the others
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind(first, **plain)
    except (TypeError, ValueError) as error:
        return error
    return None


def _is_plain(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return name in _OF_ONE and all(_is_plain("", item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
