"""Find the config files that came from outside of the project, and refuse what such files may not contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fulgurite.core.context import current_context
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import project_root
from fulgurite.trust import contents
from fulgurite.trust.values import Rules, is_below
from fulgurite.trust.walk import canonical, join, leaves

LISTS = ("trust", "trust_env")  # keys
NODE = "foreign"  # of the composed `hydra` part: the folders of foreign files, and their targets, for other processes
ENVIRONMENT = ("PROJECT_ROOT",)  # this library sets it
# Folders of a search path that a command or a config chose; the others are those of installed packages.
CHOSEN = ("main", "command-line", "hydra.searchpath")
LONGEST = 80  # characters of a value in a message


class Sources:
    """The foreign files of one composition, and the keys that they set.

    Args:
        overrides: The command line of the composition.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        self._overrides = list(overrides)
        self._keys: dict[str, str] = {}  # canonical path of each value -> the foreign file that set it
        self._references: set[str] = set()  # of these paths, those whose value is an interpolation
        self._folders: dict[str, str] = {}  # foreign file -> the folder of its source
        self.foreign_parts: dict[str, Any] = {"folders": [], "targets": {}}  # of the composed config

    @cached_property
    def allowed(self) -> list[str]:
        """The folders and addresses of `trust`, on the command line, or else in the project's own configs."""
        typed = _typed("trust", self._overrides)
        return _own("trust") if typed is None else typed

    @cached_property
    def readable_env(self) -> tuple[str, ...]:
        """Names of the environment variables that foreign configs may read, likewise of `trust_env`."""
        typed = _typed("trust_env", self._overrides)
        return (*ENVIRONMENT, *(_own("trust_env") if typed is None else typed))

    def trusts(self, path: Path) -> bool:
        """Return whether a path, with its links followed, is in a folder of `trust`."""
        folders = [Path(each).expanduser().resolve() for each in self.allowed if "://" not in each]
        return any(path.resolve().is_relative_to(folder) for folder in folders)

    def file_of(self, provider: str, path: str, config_path: str) -> str | None:
        """Return the file of a config in a folder of Hydra's search path if it is foreign, else None."""
        scheme, _, folder = path.partition("://")
        is_chosen = provider.startswith(CHOSEN)
        leaves_folder = ".." in Path(folder, config_path).parts or config_path.startswith("/")
        if scheme != "file":
            shown = f"{path}/{config_path}"
            if not (is_chosen or leaves_folder) or any(is_below(path, each) for each in self.allowed):
                return None
        else:
            file = Path(folder, f"{config_path.removesuffix('.yaml')}.yaml").absolute()
            shown, path = str(file), folder
            # links in the project's own folders are followed, links out of others are not
            of_project = [project_root() / "configs", *([] if is_chosen else [Path(folder).absolute()])]
            if not leaves_folder and any(file.is_relative_to(each) for each in of_project):
                return None
            if any(file.resolve().is_relative_to(each.resolve()) for each in of_project) or self.trusts(file):
                return None
        self._folders[shown] = path
        return shown

    def check_loaded(self, result: ConfigResult, config_path: str) -> None:
        """Refuse the content of a foreign file before Hydra resolves its defaults list."""
        file = self.file_of(result.provider, result.path, config_path)
        if file is not None:
            content = OmegaConf.to_container(result.config, resolve=False)
            found = contents.file_problems(content, config_path, self.readable_env)
            refuse([(problem, file) for problem in found], self._folders)

    def add(self, default: Any, loaded: DictConfig, repository: Any) -> None:
        """Note who sets the values of a file that is merged next; refuse a foreign file for its keys and targets."""
        file, parent = (self._found(path, repository) for path in (default.config_path, default.parent))
        if file is None and not self._folders:
            return
        content = OmegaConf.to_container(loaded, resolve=False)
        if file is not None:
            refuse(((problem, file) for problem in contents.problems(content)), self._folders)
        elif parent is not None and (default.package or "").startswith("hydra"):
            problem = ("defaults", default.package, "places a config in Hydra's own part")
            refuse([(problem, parent)], self._folders)
        self.mark(content, file)

    def _found(self, config_path: str | None, repository: Any) -> str | None:
        result = repository.load_config(config_path) if config_path is not None else None
        return None if result is None else self.file_of(result.provider, result.path, str(config_path))

    def mark(self, content: Any, file: str | None, key: str = "") -> None:
        """Note that a file, or the command line, replaces the values at a key."""
        if isinstance(content, Mapping):  # what an empty one is merged with stays
            found = self._keys.pop(canonical(key), None)
            if found is not None and canonical(key) in self._references:  # OmegaConf would copy what it refers to
                problem = (key, "${...}", "is a reference, to which another config adds keys. Write the values instead")
                refuse([(problem, found)], self._folders)
            for name, child in content.items():
                self.mark(child, file, join(key, str(name)))
            return
        place = canonical(key)
        for other in [each for each in self._keys if each == place or each.startswith(f"{place}.")]:
            del self._keys[other]
        self._references.discard(place)
        if file is not None:
            if isinstance(content, str) and "${" in content:
                self._references.add(place)
            for path, _ in leaves(content, key):
                self._keys[canonical(path)] = file

    def override(self, override: Override) -> None:
        """Note that the command line sets a key."""
        file = current_context().inherited.get(str(override.input_line))
        if file is not None:
            self._folders[file] = str(Path(file).parents[1])
        if file is not None or self._keys:
            self.mark(None if override.is_delete() else override.value(), file, override.key_or_group)

    def check_composed(self, cfg: DictConfig) -> None:
        """Refuse foreign values by what their interpolations lead to, and record the foreign targets in the config."""
        if not self._folders:
            return
        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        rules = Rules(plain, self._keys, self._folders, self.allowed)
        refuse(rules.problems(), self._folders)
        self.foreign_parts = {"folders": [*dict.fromkeys(self._folders.values())], "targets": rules.foreign_targets()}
        with open_dict(cfg.hydra):
            cfg.hydra[NODE] = self.foreign_parts


def refuse(problems: Iterable[tuple[contents.Problem, str]], folders: Mapping[str, str]) -> None:
    """Raise ConfigError with a line for each problem of a foreign file, if there is one."""
    lines = [_line(*problem, file, folders.get(file, str(Path(file).parent))) for problem, file in problems]
    if lines:
        raise ConfigError(list(dict.fromkeys(lines)))


def _line(key: str, value: Any, problem: str, file: str, folder: str) -> str:
    text = " ".join(str(value).split())
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    rule, _, remedy = problem.partition(". ")
    trusting = f"{remedy or 'Remove it'}, or trust its folder once you have read it: trust=[{folder}]."
    return f"{key}={shown}: {rule}, and {file} is not of this project. {trusting}"


def current_sources() -> Sources:
    """Return the foreign sources of the composition that this process made last."""
    sources = current_context().sources
    return sources if isinstance(sources, Sources) else begin_composition(())


def begin_composition(overrides: Sequence[str]) -> Sources:
    """Forget the sources of the last composition, and return those of a new one."""
    sources = current_context().sources = Sources(overrides)
    return sources


def foreign_parts() -> dict[str, Any]:
    """Return the foreign `folders` of the running job's config, and its foreign `targets`, path to file."""
    if not HydraConfig.initialized():
        return current_sources().foreign_parts
    hydra: Any = HydraConfig.get()  # a dictionary with more keys than its class
    return hydra.get(NODE) or Sources().foreign_parts


def _typed(name: str, overrides: Sequence[str]) -> list[str] | None:
    """Return the value of `trust` or `trust_env` on a command line; None if it is not there."""
    inherited = current_context().inherited
    given = [text for text in overrides if text.partition("=")[0].lstrip("+") == name and text not in inherited]
    if not given:
        return None
    override = OverridesParser.create().parse_override(given[-1])
    if override.is_sweep_override():
        raise ConfigError([f"{given[-1]}: cannot be swept. Give one list."])
    return _as_list(name, override.value(), given[-1])


def _own(name: str) -> list[str]:
    """Return what the project's own configs list, those of the whole config that are not chosen included."""
    found: list[str] = []
    for file in sorted((project_root() / "configs").rglob("*.yaml")):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # removed since it was listed
            continue
        is_global = file.parent == project_root() / "configs" or re.search(r"@package\s+_global_", text)
        if not is_global or not re.search(rf"^{name}\s*:", text, re.MULTILINE):
            continue
        try:
            value = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(text)), resolve=False)
            written = value.get(name) if isinstance(value, dict) else None
            resolved: Any = OmegaConf.to_container(OmegaConf.create({name: written}), resolve=True)
            found += _as_list(name, resolved[name], f"{name} in {file}")
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise ConfigError([f"{name} in {file}: {str(error).splitlines()[0]}. Correct it."]) from error
    return found


def _as_list(name: str, value: Any, shown: str) -> list[str]:
    listed = value if isinstance(value, list) else [] if value is None else ...
    if listed is ... or not all(isinstance(each, str) and each for each in listed):
        what = "folders or addresses" if name == "trust" else "names of environment variables"
        raise ConfigError([f"{shown}: is not a list of {what}. Write {name}=[<one>, ...]."])
    return [str(each) for each in listed]
