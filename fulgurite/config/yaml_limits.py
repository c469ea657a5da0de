"""Limits on the size, depth and alias expansion of a config file, checked before it is parsed.

OmegaConf 2.3 copies the value of each alias: 230 bytes, 49 nodes and 12 anchors take 6 s, two more anchors 26 s.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fulgurite.compat.hydra import SourcesRegistry
from fulgurite.config.hydra_targets import guard_hydra_part
from fulgurite.config.left_out import leave_out_replaced
from fulgurite.config.tracing.settings import YAML_LOADER
from fulgurite.core.errors import UserError
from fulgurite.trust.sources import current_sources

MAX_BYTES = 200_000  # composing takes 5 s
MAX_DEPTH = 100
MAX_NODES = 10_000  # with each alias replaced by its value


def guard_configs() -> None:
    """Make Hydra check every file and every `hydra` node, and leave out the keys of replaced targets."""
    guard_hydra_part()
    leave_out_replaced()
    # a scheduler gets a number when the model makes it; elsewhere, as in logged hyperparameters, it stays as written
    OmegaConf.register_new_resolver("steps", "${{steps:{}}}".format, replace=True)
    # Hydra finds plugins in packages named hydra_plugins only. First on the path, so that a vendored library precedes
    # an installed one, which has no such folder.
    plugins = Path(__file__).resolve().parents[1] / "plugins"
    if plugins.is_dir() and str(plugins) not in sys.path:
        sys.path.insert(0, str(plugins))
    Plugins.instance()  # later, it would replace our source by Hydra's
    types = SourcesRegistry.instance().types
    for scheme in ("file", "pkg"):
        if not hasattr(types[scheme], "is_guarded"):
            types[scheme] = _guarded(types[scheme])


def _guarded(plain: type[ConfigSource]) -> type[ConfigSource]:
    class Guarded(plain):  # type: ignore[valid-type,misc]  # Hydra loads its source classes at run time
        is_guarded = True

        def load_config(self, config_path: str) -> ConfigResult:
            path = Path(self.path) / self._normalize_file_name(config_path)
            if self.scheme() == "file":
                check_config_file(path)
            try:
                result: ConfigResult = super().load_config(config_path)
            except RecursionError as error:
                raise _too_deep(path) from error
            current_sources().check_loaded(result, config_path)
            return result

    Guarded.__name__ = plain.__name__  # the registry rejects a second class of another name
    return Guarded


def check_config_file(path: Path) -> None:
    """Refuse a YAML file that is too large, is not UTF-8, or expands too far through aliases.

    OmegaConf reports a file that is missing or invalid YAML.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(f"{path}: has {size:,} bytes, a config may have {MAX_BYTES:,}. Move data to another file")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte {error.start} (0x{content[error.start]:02x})"
        raise UserError(f"{path}:{line}: {byte} is not UTF-8. Save the file as UTF-8") from error
    try:
        nodes = _count_nodes(text) if "*" in text and "&" in text else 0
    except yaml.YAMLError:
        return
    except KeyError as error:
        rule = f"the alias *{error.args[0]} is inside its own anchor. Write the value instead"
        raise UserError(f"{path}: {rule}") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    if nodes > MAX_NODES:
        shown = f"{nodes:,}" if nodes < 10**9 else "more than 10^9"
        rule = f"its aliases expand to {shown} values, a config may have {MAX_NODES:,}. Use fewer aliases"
        raise UserError(f"{path}: {rule}")


def _too_deep(path: Path) -> UserError:
    return UserError(f"{path}: is nested too deeply. Use fewer levels")


def _count_nodes(text: str) -> int:
    """Return how many nodes a document has, with every alias replaced.

    Raises:
        KeyError: An alias is inside the node that it names.
        RecursionError: The document is deeper than MAX_DEPTH.
    """
    sizes: dict[str, int] = {}  # by anchor
    anchors: list[str] = [""]  # of the nodes around the event
    totals = [0]  # their sizes so far
    # events, not nodes: the parser's recursion on a deep document would crash the process
    for event in yaml.parse(text, Loader=YAML_LOADER):
        anchor, size = getattr(event, "anchor", None) or "", 0
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(anchor)
            totals.append(1)
            if len(anchors) > MAX_DEPTH:
                raise RecursionError
            continue
        if isinstance(event, yaml.AliasEvent):
            if anchor in anchors:
                raise KeyError(anchor)
            size = sizes.get(anchor, 0)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchor, size = (anchor, 1) if isinstance(event, yaml.ScalarEvent) else (anchors.pop(), totals.pop())
            sizes[anchor] = size
        totals[-1] += size
    return totals[0]
