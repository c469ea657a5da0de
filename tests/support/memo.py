"""Computes once in a process what Hydra and OmegaConf compute anew in every composition.

Hundreds of tests compose the same files, and a composition spends half of its time on parsing them. The results are the
same: each function depends on its arguments only, and an error is never kept.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache, wraps
from typing import IO, Any

from hydra._internal import defaults_list
from omegaconf import DictConfig, ListConfig, OmegaConf, _utils, base
from omegaconf.grammar_parser import parse


def remember_parsed_configs() -> None:
    """Keep parsed YAML by its text, parsed interpolations, and the choices that defaults lists may refer to."""
    if hasattr(OmegaConf.load, "__wrapped__"):
        return
    OmegaConf.load = staticmethod(_load_once(OmegaConf.load))  # type: ignore[method-assign]
    _utils.parse = base.parse = lru_cache(maxsize=4096)(parse)  # type: ignore[attr-defined]
    defaults_list._create_interpolation_map = _map_once(defaults_list._create_interpolation_map)


def _load_once(load: Any) -> Any:
    loaded: dict[str, DictConfig | ListConfig] = {}

    @wraps(load)
    def load_once(file_: str | IO[Any]) -> DictConfig | ListConfig:
        if isinstance(file_, str) or not hasattr(file_, "seek"):
            return load(file_)  # type: ignore[no-any-return]
        start = file_.tell()
        text = file_.read()
        if text not in loaded:
            file_.seek(start)  # the parser names the file in its errors
            loaded[text] = load(file_)
        return deepcopy(loaded[text])

    return load_once


def _map_once(create: Any) -> Any:
    created: dict[str, DictConfig] = {}

    @wraps(create)
    def create_once(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig:
        key = repr((overrides.known_choices, [vars(default) for default in defaults], self_added))
        if key not in created:
            created[key] = create(overrides, defaults, self_added)
        return created[key]

    return create_once
