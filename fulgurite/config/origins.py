"""Where each key of a composed config was set: the file and line, or the override of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import ConfigLoaderImpl, config_repository
from fulgurite.config.override_text import without_null_groups
from fulgurite.config.view import join
from fulgurite.core.project import project_root

COMMAND_LINE = "command line: "
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is faster, and some builds of PyYAML lack it


class Origins:
    """The file and line, or the override, that set each key last."""

    def __init__(self, places: dict[str, str] | None = None) -> None:
        self.places = places or {}  # trainer.max_epochs -> configs/trainer/default.yaml:5

    def find(self, key: str) -> str | None:
        """Return where `key`, or else its nearest parent, was set; None when unknown."""
        while key:
            if key in self.places:
                return self.places[key]
            # an override below the key created it: +callbacks.x.patience=1 creates callbacks.x
            below = [place for other, place in self.places.items() if other.startswith((f"{key}.", f"{key}["))]
            if below:
                return below[-1]
            key = key[: key.rindex("[")] if key.endswith("]") else key.rpartition(".")[0]
        return None

    @classmethod
    def of(cls, cfg: DictConfig) -> Origins:
        """Trace the composed config of this process; empty without an initialized Hydra.

        Args:
            cfg: A config composed by `@hydra.main`, or by `compose(..., return_hydra_config=True)`.
        """
        if not GlobalHydra.instance().is_initialized():
            return cls()
        full: DictConfig | None = cfg if "hydra" in cfg else HydraConfig.instance().cfg  # type: ignore[assignment]
        hydra = full.hydra if full is not None else None
        if not isinstance(hydra, DictConfig):
            return cls()
        name = OmegaConf.select(hydra, "job.config_name", throw_on_missing=False)
        if name is None:
            return cls()
        # unresolved: an override may itself be an interpolation
        given = OmegaConf.to_container(hydra.overrides, resolve=False)
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(given, dict)
        assert isinstance(loader, ConfigLoaderImpl)
        return cls.traced(loader, str(name), [*given.get("hydra", []), *given.get("task", [])])

    @classmethod
    def traced(cls, loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> Origins:
        """Trace a composition by its defaults list and its overrides, including those of `hydra.`."""
        places: dict[str, str] = {}
        overrides = without_null_groups(overrides, loader.repository.group_exists)
        try:
            composed = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
            repository = config_repository(loader, config_name, overrides)
            for default in composed.defaults:
                file = file_of(default.config_path or "", repository.get_sources())
                if file is not None:
                    lines = _lines(file, default.package or "")
                    places.update((key, f"{shown_path(file)}:{line}") for key, line in lines)
            for override in composed.config_overrides:
                keys = _keys_below(override.key_or_group, override.value())
                places.update(dict.fromkeys(keys, f"{COMMAND_LINE}{override.input_line}"))
        except (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
            pass  # places only improve messages
        return cls(places)


def file_of(config_path: str, sources: Sequence[Any]) -> Path | None:
    """Return the file of a config: the first of the sources that has it, as in Hydra."""
    for source in sources:
        if source.scheme() == "file":
            file = Path(source.path) / f"{config_path}.yaml"
            if file.is_file():
                return file
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the dictionary in a YAML file; empty for a file that holds none or cannot be read."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), YAML_LOADER)  # noqa: S506 - a safe one
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def shown_path(file: Path) -> str:
    """Return a file's path for messages, relative to the project's root if it is inside."""
    return file.relative_to(project_root()).as_posix() if file.is_relative_to(project_root()) else str(file)


def _lines(file: Path, package: str) -> Iterator[tuple[str, int]]:
    """Yield each key path of a YAML file with its line, from 1."""
    yield from _walk(yaml.compose(file.read_text(encoding="utf-8"), Loader=YAML_LOADER), package)


def _walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == "defaults" and key_node.start_mark.column == 0:
                continue
            key = f"{prefix}.{key_node.value}" if prefix else str(key_node.value)
            yield key, key_node.start_mark.line + 1
            yield from _walk(value_node, key)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            key = f"{prefix}[{position}]"
            yield key, item.start_mark.line + 1
            yield from _walk(item, key)


def _keys_below(key: str, value: Any) -> Iterator[str]:
    yield key
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _keys_below(join(key, str(name)), child)
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _keys_below(join(key, position), child)
