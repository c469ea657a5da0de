"""Make Hydra check each config file before it parses it, see `sources.yaml_bounds`."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fulgurite.compat.hydra import SourcesRegistry
from fulgurite.config.hydra_targets import guard_hydra_part
from fulgurite.config.left_out import leave_out_replaced
from fulgurite.core.errors import UserError
from fulgurite.sources.yaml_bounds import check_size, check_yaml, text_of
from fulgurite.trust.secrets import guard_basic_sweeper
from fulgurite.trust.sources import current_sources


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
    guard_basic_sweeper()
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
    """Refuse a YAML file that is too large or a pipe, is not UTF-8, or expands too far through aliases.

    OmegaConf reports a file that is missing or invalid YAML.
    """
    if not path.is_file():
        if path.is_fifo() or path.is_char_device() or path.is_block_device():
            raise UserError(f"{path}: is no regular file. Replace it by a YAML file.")
        return
    check_size(path.stat().st_size, str(path))
    text = text_of(path.read_bytes(), str(path))
    if "*" in text and "&" in text:
        check_yaml(text, str(path))


def _too_deep(path: Path) -> UserError:
    return UserError(f"{path}: is nested too deeply. Use fewer levels")
