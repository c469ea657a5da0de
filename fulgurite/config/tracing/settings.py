"""Each file with its line, and each override, that sets a key of a config, in the order in which Hydra applies them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.types import RunMode
from omegaconf import OmegaConf

from fulgurite.compat.hydra import ConfigLoaderImpl, config_repository
from fulgurite.compat.interpolations import YAML_LOADER
from fulgurite.core.files import read_regular
from fulgurite.core.project import project_root
from fulgurite.trust.walk import nodes

COMMAND_LINE = "command line: "


@dataclass(frozen=True)
class Setting:
    """One place that sets a key."""

    key: str
    place: str  # configs/trainer/default.yaml:5, or the override after `COMMAND_LINE`
    given: Any  # syntax of YAML, or the value of an override
    config: str = ""  # path of the config in its group, e.g. trainer/default; empty for an override
    chosen_by: str = ""  # the file whose defaults list chose the config, or the override that did
    removes: bool = False

    @property
    def value(self) -> Any:
        """The value as written, with its interpolations."""
        return _plain_value(self.given) if isinstance(self.given, yaml.Node) else self.given


def trace_settings(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> Iterator[Setting]:
    """Yield each place that sets a key, in the order in which Hydra applies them; the last one of a key wins.

    Args:
        loader: Hydra's, of an initialized Hydra.
        config_name: The primary config.
        overrides: As Hydra reads them, without `group=null`.

    Raises:
        HydraException: The config does not compose.
    """
    composed = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN)
    repository = config_repository(loader, config_name, overrides)
    choices = composed.overrides.override_metadata
    sources = repository.get_sources()
    for default in composed.defaults:
        found = _content_of(default.config_path or "", sources)
        if found is None:
            continue
        place, content = found
        group, parent = (path.rpartition("/")[0] for path in (str(default.config_path), str(default.parent)))
        name = default.override_key or ("" if group == parent else group)
        choice = choices.get(name)
        chosen = f"{COMMAND_LINE}{next((one for one in overrides if one.startswith(f'{name}=')), name)}"
        if choice is None or not choice.external_override:
            by = _content_of(str((choice and choice.containing_config_path) or default.parent), sources)
            chosen = by[0] if by is not None and by[0] != place else ""
        config, package = str(default.config_path), default.package or ""
        if isinstance(content, dict):  # of a format whose lines are not known
            for key, value in nodes(content, package):
                yield Setting(key, place, value, config, chosen)
            continue
        for key, line, node in _walk(content, package):
            yield Setting(key, f"{place}:{line}", node, config, chosen)
    for override in composed.config_overrides:
        for key, value in nodes(override.value(), override.key_or_group):
            yield Setting(key, f"{COMMAND_LINE}{override.input_line}", value, removes=override.is_delete())


def file_of(config_path: str, sources: Sequence[Any]) -> Path | None:
    """Return the file of a config: the first of the sources that has it, as in Hydra."""
    for source in sources:
        if source.scheme() == "file":
            file = Path(source.path) / f"{config_path}.yaml"
            if file.is_file():
                return file
    return None


def text_of_config(config_path: str, sources: Sequence[Any]) -> tuple[str, Any] | None:
    """Return the place of a config and its YAML, or the source that has it in another format; None without a file."""
    for source in sources:
        if source.scheme() == "file":
            file = Path(source.path) / f"{config_path}.yaml"
            if file.is_file():
                return shown_path(file), file.read_text(encoding="utf-8")
        elif hasattr(source, "source_text") and source.is_config(config_path):  # sources.config_source
            return source.source_text(config_path) or (f"{source.full_path()}/{config_path}", source)
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the dictionary in a YAML file; empty for a file that holds none or cannot be read."""
    try:
        return parse_yaml(read_regular(file).decode())
    except (OSError, ValueError):
        return {}


def parse_yaml(text: str) -> dict[str, Any]:
    """Return the dictionary in a text; empty for a text that holds none or is not valid."""
    try:
        content = yaml.load(text, YAML_LOADER)  # noqa: S506 - a safe one
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def shown_path(file: Path) -> str:
    """Return a file's path for messages, relative to the project's root if it is inside."""
    return file.relative_to(project_root()).as_posix() if file.is_relative_to(project_root()) else str(file)


def _content_of(config_path: str, sources: Sequence[Any]) -> tuple[str, yaml.Node | dict[str, Any] | None] | None:
    """Return the place and the YAML syntax of a config, or the values of one in another format; None without a file.

    Configs inside of packages, such as Hydra's own, have none.
    """
    if (found := text_of_config(config_path, sources)) is None:
        return None
    place, text = found
    if isinstance(text, str):
        return place, yaml.compose(text, Loader=YAML_LOADER)
    content: Any = OmegaConf.to_container(text.load_config(config_path).config, resolve=False)
    return place, content


def _walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield each key path of a YAML file with its line, from 1, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == "defaults" and key_node.start_mark.column == 0:
                continue
            key = f"{prefix}.{key_node.value}" if prefix else str(key_node.value)
            yield key, key_node.start_mark.line + 1, value_node
            yield from _walk(value_node, key)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            key = f"{prefix}[{position}]"
            yield key, item.start_mark.line + 1, item
            yield from _walk(item, key)


def _plain_value(node: yaml.Node) -> Any:
    """Return the value of YAML syntax as OmegaConf reads it: 1e-3 is a number."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain_value(child) for key, child in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain_value(child) for child in node.value]
    if getattr(node, "style", None):  # in quotes, or a block of text
        return node.value
    plain = OmegaConf.to_container(OmegaConf.create(f"value: {node.value}"), resolve=False)
    return plain["value"] if isinstance(plain, dict) else None
