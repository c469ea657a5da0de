"""Let users' classes read the dictionaries of a config as attributes."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from lightning.fabric.utilities import AttributeDict
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import raw_node
from fulgurite.config.view import is_interpolation
from fulgurite.engine.components.steps import defer_step_counts
from fulgurite.trust.targets import is_within

PARTS = ("model", "data", "trainer", "callbacks", "logger")
# Classes of these packages take plain dictionaries.
LIBRARIES = ("lightning", "torch", "torchmetrics", "fulgurite")
ATTRIBUTE_DICT = f"{AttributeDict.__module__}.{AttributeDict.__qualname__}"


def with_attributes(cfg: DictConfig) -> DictConfig:
    """Return a copy of a config in which users' classes get dictionaries that can be read as `cfg.x` and `cfg["x"]`.

    `instantiate` makes them: each such dictionary gets the target of Lightning's AttributeDict, a dictionary with
    attributes. Classes with `_recursive_: false` get the configs that Hydra passes by default.
    """
    copied = copy.deepcopy(cfg)
    with open_dict(copied):
        for part in PARTS:
            _mark(raw_node(copied, part), is_argument=False)
    return copied


def _mark(node: Any, *, is_argument: bool) -> None:
    content: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, (DictConfig, ListConfig)) else None
    if not isinstance(content, (dict, list)):  # a plain value, null, or an interpolation
        return
    if isinstance(content, dict) and "_target_" in content:
        defer_step_counts(node)
        if content.get("_recursive_") is False:
            return
        target = content["_target_"]
        is_argument = isinstance(target, str) and not is_within(target, LIBRARIES)
    elif is_argument and isinstance(content, dict) and all(isinstance(name, str) for name in content):
        node["_target_"] = ATTRIBUTE_DICT
        content = OmegaConf.to_container(node, resolve=False)
    for name, value in enumerate(content) if isinstance(content, list) else content.items():
        if is_argument and is_interpolation(value):
            _copy_referred(node, name)
        _mark(raw_node(node, name), is_argument=is_argument)


def _copy_referred(node: Any, name: str | int) -> None:
    """Replace an interpolation of a dictionary or a list by its value, so that it can be marked too."""
    with suppress(OmegaConfBaseException):
        value = node[name]
        if isinstance(value, (DictConfig, ListConfig)) and "_target_" not in value:
            node[name] = OmegaConf.to_container(value, resolve=True)
