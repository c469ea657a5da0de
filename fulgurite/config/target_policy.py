"""Decide which objects a `_target_` may name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.config.schema import Extras, read_settings
from fulgurite.config.view import MISSING, RUNTIME, ConfigView, is_interpolation
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import project_root
from fulgurite.trust.sources import foreign_parts
from fulgurite.trust.targets import LOOKUPS, is_within, object_problem, rejection_of
from fulgurite.trust.walk import join


def check_targets(cfg: DictConfig, key: str = "", foreign: Mapping[str, str] | None = None) -> None:
    """Import every `_target_` of the config and classify the object found, not the string that names it.

    Args:
        cfg: A composed config; its `hydra` part has an allow-list of its own.
        key: Only this top-level key; an older run may name classes elsewhere that have moved.
        foreign: Path of each target that is not of this project, and its file; None: as composed.
    """
    more, view = read_settings(cfg, Extras).allowed_targets, ConfigView(cfg)
    findings, foreign = [], foreign_parts()["targets"] if foreign is None else foreign
    parts = [key] if key else list(view.written)
    for path, block in chain.from_iterable(_blocks(cfg, view.written[part], part) for part in parts):
        name = "path" if block["_target_"] in LOOKUPS else "_target_"
        if (written := block.get(name)) == MISSING:  # reported by the checks
            continue
        target = view.resolve(written, join(path, name))  # Hydra resolves it, too
        if not isinstance(target, str):
            findings.append(f"{path}.{name}: must be the dotted path of a class or a function")
        elif problem := problem_of(target, more, name):
            findings.append(f"{path}.{name}: {target!r} {problem}")
        elif (file := foreign.get(join(path, name))) and (problem := object_problem(target, locate(target), path)):
            findings.append(f"{path}.{name}: {target!r} of {file}, which is not of this project, {problem}")
    if findings:
        raise ConfigError(findings)


def _blocks(cfg: DictConfig, node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dictionary with a `_target_`, and its path, also one that a resolver such as `oc.create` makes."""
    if is_interpolation(node):
        node = _made(cfg, node, key)
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from _blocks(cfg, child, join(key, str(name)))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from _blocks(cfg, child, join(key, position))


def _made(cfg: DictConfig, written: str, key: str) -> Any:
    """Return the dictionary or list that a resolver makes of its arguments; None for other values."""
    if ":" not in written or RUNTIME.match(written):  # another key, which is checked at its place, or no container
        return None
    with suppress(OmegaConfBaseException, ValueError):  # whoever builds the component reports it
        value = OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else None
    return None


def problem_of(target: str, more: Sequence[str], name: str) -> str:
    """Return why a config may not name a target, or an empty string."""
    try:
        found = locate(target)
    except TargetNotFound as error:
        return str(error)
    if name == "_target_" and (isinstance(found, ModuleType) or not callable(found)):
        return "is not callable. Name a class or a function"
    return _rejection(found, more)


class TargetNotFound(Exception):
    """A target that cannot be imported; the message contains the part that fails."""


def locate(target: str) -> Any:
    """Return the object that a dotted path names, importing the longest part of it that is a module."""
    parts = target.split(".")
    found: Any = None
    for position, part in enumerate(parts):
        path, parent = ".".join(parts[: position + 1]), ".".join(parts[:position])
        # below another name of a module, e.g. logging.os, nothing can be imported
        if found is None or (isinstance(found, ModuleType) and found.__name__ == parent):
            try:
                found = importlib.import_module(path)
                continue
            except Exception as error:
                if isinstance(error, ModuleNotFoundError) and is_within(str(error.name), ["pytorch_lightning"]):
                    hint = "Import from lightning.pytorch instead"
                    raise TargetNotFound(f"cannot be imported: {path} imports pytorch_lightning. {hint}") from error
                # the part itself is missing only if the import system names it
                if not (isinstance(error, ModuleNotFoundError) and error.name == path):
                    reason = f"{_own_line(error)}{path} fails with {type(error).__name__}: {error}"
                    raise TargetNotFound(f"cannot be imported: {reason}") from error
        if found is None:
            raise TargetNotFound(f"does not exist: there is no package {path!r}. Install it or correct the name")
        if not hasattr(found, part):
            raise TargetNotFound(f"does not exist: {parent} has no {part!r}")
        found = getattr(found, part)
    return found


def _own_line(error: Exception) -> str:
    """Return file and line of the user's code that raised an error, before a colon; empty for others."""
    places = [(frame.filename, frame.lineno or 1) for frame in extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno or 1))
    files = [(Path(file), line) for file, line in places if "site-packages" not in file]
    root = project_root()
    own = [(file.relative_to(root), line) for file, line in files if file.is_relative_to(root)]
    shown = [f"{file}:{line}: " for file, line in own if file.parts[0] != "fulgurite"]
    return shown[-1] if shown else ""


def _rejection(found: Any, more: Sequence[str]) -> str:
    """Return why the object may not be called from a config, or an empty string."""
    owner = getattr(found, "__module__", None)
    if owner is None:  # a bound method: use its class
        holder = getattr(found, "__self__", found)
        owner = (holder if isinstance(holder, type) else type(holder)).__module__
    name = f"{owner}.{getattr(found, '__qualname__', type(found).__qualname__)}"
    if isinstance(found, ModuleType):
        name = found.__name__
    return rejection_of(name, more)
