"""Compose a config with each place that sets one of its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from fulgurite.compat.hydra import VERSION_BASE, ConfigLoaderImpl
from fulgurite.config.left_out import take_messages
from fulgurite.config.override_text import without_null_groups
from fulgurite.config.tags import replace_tags
from fulgurite.config.tracing.settings import COMMAND_LINE, Setting, trace_settings
from fulgurite.config.view import ConfigView, parent
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.project import prepare_environment, project_root
from fulgurite.validation.composition import explain_composition

Value = Any  # null, bool, int, float, str, list or dict


@dataclass
class TracedConfig:
    """A composed config and its history."""

    cfg: DictConfig  # with its `hydra` part
    settings: list[Setting]  # in the order in which Hydra applies them
    left_out: list[str]  # a line for each class that another replaced

    @cached_property
    def view(self) -> ConfigView:
        """The config as written, without its `hydra` part, and resolved."""
        return ConfigView(self.cfg)

    @cached_property
    def written(self) -> dict[str, Value]:
        """The config as written, with its `hydra` part."""
        return {**self.view.written, "hydra": self.view.hydra}

    def history(self, key: str) -> list[Setting]:
        """Return the places that set a key, the last of which wins, and those that removed a parent of it."""
        return [one for one in self.settings if one.key == key or (one.removes and key.startswith(f"{one.key}."))]

    def last(self, key: str) -> Setting | None:
        """Return the place that set a key, or else its nearest parent, last."""
        while key:
            if found := self.history(key):
                return found[-1]
            key = parent(key)
        return None


def compose_traced(overrides: Sequence[str], config_name: str = "train") -> TracedConfig:
    """Compose a config as an entry point does.

    Args:
        overrides: As on the command line.
        config_name: The config file in `configs/`, without `.yaml`.

    Raises:
        ConfigError: Hydra refuses overrides; all of them together, one line each.
    """
    prepare_environment()
    guard_configs()
    texts = replace_tags(overrides)
    with initialize_config_dir(**VERSION_BASE, config_dir=str(project_root() / "configs")):
        try:
            cfg = hydra_compose(config_name, overrides=texts, return_hydra_config=True)
        except Exception as error:
            if explained := explain_composition(error, overrides, config_name):
                raise explained from error
            raise
        loader = cast("ConfigLoaderImpl", GlobalHydra.instance().config_loader())
        applied = without_null_groups(texts, loader.repository.group_exists)
        settings = _as_given(trace_settings(loader, config_name, applied), overrides)
        return TracedConfig(cfg, settings, take_messages())


def _as_given(settings: Iterable[Setting], overrides: Sequence[str]) -> list[Setting]:
    """Return the settings with the overrides of tags as the user gave them."""
    added = {text for one in overrides for text in replace_tags([one])} - set(overrides)
    given = {f"{COMMAND_LINE}{text}": f"{COMMAND_LINE}{text.lstrip('+')}" for text in added if text.startswith("+")}
    is_extra = "tags=null" in added
    found = [one for one in settings if not (is_extra and one.place == f"{COMMAND_LINE}tags=null")]
    return [replace(one, place=given.get(one.place, one.place)) for one in found]


def written_at(written: Value, key: str) -> Value:
    """Return the value at a dotted key of plain values; `...` for a missing one."""
    if not key:
        return written
    if isinstance(written, dict):
        for name, child in written.items():  # a name may contain a dot
            rest = key[len(str(name)) :]
            if key.startswith(str(name)) and rest[:1] in {"", ".", "["}:
                found = written_at(child, rest.removeprefix("."))
                if found is not ...:
                    return found
    elif isinstance(written, list) and key.startswith("["):
        position, _, rest = key[1:].partition("]")
        if position.isdecimal() and int(position) < len(written):
            return written_at(written[int(position)], rest.removeprefix("."))
    return ...


def environment_file() -> Path:
    """Return the file with the project's environment variables, which may be missing."""
    return project_root() / ".env"
