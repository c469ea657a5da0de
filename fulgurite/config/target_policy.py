"""Decide which objects a `_target_` may name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.schema import Extras, read_settings
from fulgurite.core.errors import ConfigError

# Packages whose classes and functions a config may name, without what runs code that is not installed.
ALLOWED = (
    "src",
    "lightning",
    "torch",
    "torchmetrics",
    "optuna",
    "aim",
    "datetime.timedelta",
    "fulgurite.callbacks",
    "fulgurite.exact_resume.proof.probe",
)
REFUSED = (
    "torch.hub",
    "torch.serialization",
    "torch.package",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "torch.utils._",
    "torch._",
)


def check_targets(cfg: DictConfig, key: str = "") -> None:
    """Import every `_target_` of the config and classify the object found, not the string that names it.

    Args:
        cfg: A composed config.
        key: Only this top-level key; an older run may name classes elsewhere that have moved.

    Raises:
        ConfigError: All targets that cannot be imported or are not allowed, one line each.
    """
    allowed = (*ALLOWED, *read_settings(cfg, Extras).allowed_targets)
    findings = []
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    for place, target in _targets(plain[key] if key else plain, key):
        try:
            problem = _rejection(locate(target), allowed)
        except TargetNotFound as error:
            problem = str(error)
        if problem:
            findings.append(f"{place}._target_: {target!r} {problem}")
    if findings:
        raise ConfigError(findings)


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        target = node.get("_target_")
        if isinstance(target, str) and target != "???":
            yield key, target
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from _targets(child, f"{key}[{position}]")


class TargetNotFound(Exception):
    """A target that cannot be imported; the message names the part that fails."""


def locate(target: str) -> Any:
    """Return the object that a dotted path names, importing the longest part of it that is a module."""
    parts = target.split(".")
    found: Any = None
    for length in range(1, len(parts) + 1):
        path, parent = ".".join(parts[:length]), ".".join(parts[: length - 1])
        # below another name of a module, e.g. logging.os, nothing can be imported
        if found is not None and not (isinstance(found, ModuleType) and found.__name__ == parent):
            if not hasattr(found, parts[length - 1]):
                raise TargetNotFound(f"does not exist: {parent} has no {parts[length - 1]!r}")
            found = getattr(found, parts[length - 1])
            continue
        try:
            found = importlib.import_module(path)
        except Exception as error:
            # a missing part is only a missing part when the import system names that very part
            missing = isinstance(error, ModuleNotFoundError) and error.name == path
            if found is not None and missing and hasattr(found, parts[length - 1]):
                found = getattr(found, parts[length - 1])
            elif missing and found is None:
                raise TargetNotFound(
                    f"does not exist: there is no package {path!r}. Install it or correct the name"
                ) from error
            elif missing:
                raise TargetNotFound(f"does not exist: {found.__name__} has no {parts[length - 1]!r}") from error
            else:
                raise TargetNotFound(
                    f"cannot be imported: {path} fails with {type(error).__name__}: {error}"
                ) from error
    return found


def _rejection(found: Any, allowed: Sequence[str]) -> str:
    """Return why the object may not be called from a config, or an empty string."""
    if isinstance(found, ModuleType) or not callable(found):
        return "is not something that can be called. Name a class or a function"
    owner = getattr(found, "__module__", None)
    if owner is None:  # a bound method: use its class
        owner = getattr(type(getattr(found, "__self__", found)), "__module__", "")
    name = f"{owner}.{getattr(found, '__qualname__', type(found).__qualname__)}"
    if is_within(name, REFUSED) or not is_within(name, allowed):
        return (
            f"is really {name}, which configs may not call; "
            "a config may name classes of " + ", ".join(allowed) + ". Add a package with extras.allowed_targets"
        )
    return ""


def is_within(name: str, roots: Sequence[str]) -> bool:
    """Tell whether a dotted name is one of `roots` or below one; a root that ends with `_` is a prefix."""
    return any(name == root or name.startswith(root if root.endswith("_") else f"{root}.") for root in roots)
