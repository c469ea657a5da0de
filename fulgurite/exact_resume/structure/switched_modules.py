"""Restore which of a model's modules stands at which path: a criterion that a hook switches to another one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fulgurite.compat.modules import ModelParts


def switched_modules(start: Mapping[str, nn.Module], parts: ModelParts) -> dict[str, str]:
    """Return the paths at which another module of the start stands by now, and the path that it had there."""
    first: dict[int, str] = {}
    for path, module in start.items():
        first.setdefault(id(module), path)
    return {
        path: first[id(module)]
        for path, module in parts.all_modules
        if path in start and start[path] is not module and id(module) in first
    }


def switch_modules(model: nn.Module, start: Mapping[str, nn.Module], switched: Mapping[str, str]) -> None:
    """Set modules of the start at the paths at which `switched_modules` found them."""
    for path, first in switched.items():
        parent, _, name = path.rpartition(".")
        if first in start:
            setattr(model.get_submodule(parent), name, start[first])
