"""A config as it may be seen: resolved, but nothing that came out of the environment."""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

MASK = "***"
ENVIRONMENT = "oc.env:"
ROOT_VARIABLE = "oc.env:PROJECT_ROOT"  # set by the project itself; no secret


def masked(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain resolved values, each value read from the environment shown as `***`.

    A secret is never resolved: the interpolation that would read it is replaced first, wherever it is referred to from.

    Args:
        cfg: A composed config; it is not changed.
    """
    shown = copy.deepcopy(cfg)
    OmegaConf.set_readonly(shown, False)
    _mask(shown)
    plain = OmegaConf.to_container(shown, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _mask(node: DictConfig | ListConfig) -> None:
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        child = node._get_node(key)
        if isinstance(child, (DictConfig, ListConfig)) and not child._is_interpolation() and not child._is_none():
            if not child._is_missing():
                _mask(child)
            continue
        text = getattr(child, "_value", lambda: None)()
        if isinstance(text, str) and ENVIRONMENT in text.replace(ROOT_VARIABLE, ""):
            node[key] = MASK
