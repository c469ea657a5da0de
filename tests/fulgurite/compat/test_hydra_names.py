"""The private names of Hydra and OmegaConf that the library uses exist in the installed version."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from fulgurite.compat import hydra as compat

NAMES: list[tuple[Any, str]] = [
    (BaseContainer, "_resolvers"),
    (DictConfig, "_get_node"),
    (FileConfigSource, "_normalize_file_name"),
    *(
        (compat.ConfigLoaderImpl, name)
        for name in (compat.LOADS, compat.COMPOSES, "compute_defaults_list", "load_sweep_config")
    ),
    *(
        (compat.ConfigLoaderImpl, f"_{name}")
        for name in ("parse_overrides_and_create_caching_repo", "apply_overrides_to_config", "load_configuration_impl")
    ),
]


@pytest.mark.parametrize(("owner", "name"), NAMES)
def test_a_private_name_exists(owner: Any, name: str) -> None:
    assert hasattr(owner, name)


def test_the_frames_of_a_composition_have_the_variables_that_are_read() -> None:
    load, apply = (
        inspect.unwrap(getattr(compat.ConfigLoaderImpl, name)).__code__.co_varnames
        for name in ("_load_configuration_impl", "_apply_overrides_to_config")
    )
    assert {"self", "caching_repo", "cfg"} <= set(load)
    assert "override" in apply
    assert "_return_value" in JobReturn.__dataclass_fields__


def test_the_accessors_return_what_hydra_holds() -> None:
    assert {"oc.env", "hydra"} <= {*compat.resolver_names(), "hydra"}
    cfg = OmegaConf.create({"a": "${b}", "b": 1})
    OmegaConf.set_struct(cfg, True)
    node = compat.raw_node(cfg, "a")
    assert node._value() == "${b}"
    assert compat.raw_node(cfg, "missing") is None
