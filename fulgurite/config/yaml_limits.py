"""Make Hydra check each config file before it parses it, see `sources.yaml_bounds`."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fulgurite.compat.hydra import CachingConfigRepository, SourcesRegistry
from fulgurite.config.hydra_targets import guard_hydra_part
from fulgurite.config.left_out import leave_out_replaced
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.rank_logging import rank
from fulgurite.sources.yaml_bounds import check_header, check_size, check_yaml, has_long_digits, text_of
from fulgurite.trust.secrets import guard_basic_sweeper
from fulgurite.trust.sources import CHOSEN, current_sources

MAX_LOADS = 2_000  # of configs in one composition; the shipped ones need about 200


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
    bound_defaults_lists()
    types = SourcesRegistry.instance().types
    for scheme in ("file", "pkg"):
        if not hasattr(types[scheme], "is_guarded"):
            types[scheme] = _guarded(types[scheme])


def _guarded(plain: type[ConfigSource]) -> type[ConfigSource]:
    class Guarded(plain):  # type: ignore[valid-type,misc]  # Hydra loads its source classes at run time
        is_guarded = True

        def available(self) -> bool:
            """Return whether there is such a folder; one that is not there is reported in one line."""
            is_there = bool(super().available())
            if not is_there and self.provider.startswith(CHOSEN[1:]):
                message = re.escape(f"provider={self.provider}, path={self.path} is not available.")
                warnings.filterwarnings("ignore", message=message)
                _warn_of_missing(self.path if self.scheme() == "file" else self.full_path())
            return is_there

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
    """Refuse a YAML file that is too large or a pipe, is not UTF-8, expands too far, or has a header without a value.

    OmegaConf reports a file that is missing or invalid YAML.
    """
    if not path.is_file():
        if path.is_fifo() or path.is_char_device() or path.is_block_device():
            raise UserError(f"{path}: is no regular file. Replace it by a YAML file.")
        return
    check_size(path.stat().st_size, str(path))
    text = text_of(path.read_bytes(), str(path))
    check_header(text, str(path))
    if ("*" in text and "&" in text) or has_long_digits(text):
        check_yaml(text, str(path))


@cache
def _warn_of_missing(folder: str) -> None:
    """Say once that a folder of the search path is not there."""
    is_host = re.match(r"[\w-]+(\.[\w-]+)+(:\d+)?(/|$)", folder)
    remedy = f"Write https://{folder} for a web server, or correct it" if is_host else "Correct it"
    if rank() == 0:
        sys.stderr.write(f"warning: hydra.searchpath: {folder}: there is no such folder. {remedy}.\n")


def bound_defaults_lists() -> None:
    """Refuse defaults lists that multiply: twenty files of two entries each name a million configs."""
    plain: Callable[..., ConfigResult | None] = CachingConfigRepository.load_config
    if hasattr(plain, "__wrapped__"):
        return

    @wraps(plain)
    def load_config(self: CachingConfigRepository, config_path: str) -> ConfigResult | None:
        result = plain(self, config_path)
        loads = vars(self)["loads"] = vars(self).get("loads", 0) + 1
        if loads > MAX_LOADS and result is not None:
            problem = f"it and other defaults lists name more than {MAX_LOADS:,} configs. Name each of them once."
            raise ConfigError([f"{result.path}/{config_path}: {problem}"])
        return result

    CachingConfigRepository.load_config = load_config  # type: ignore[method-assign]


def _too_deep(path: Path) -> UserError:
    return UserError(f"{path}: is nested too deeply. Use fewer levels")
