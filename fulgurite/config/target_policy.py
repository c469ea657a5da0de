"""Decide which objects a `_target_` may name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.schema import Extras, read_settings
from fulgurite.config.view import MISSING, leaves
from fulgurite.core.errors import ConfigError

# Packages whose classes and functions a config may name, without what runs code that is not installed.
ALLOWED = (
    "src", "lightning", "torch", "torchmetrics", "optuna", "aim", "datetime.timedelta", "fulgurite.callbacks",
    "fulgurite.exact_resume.proof.probe",
)  # fmt: skip
REFUSED = (
    "torch.hub", "torch.serialization", "torch.package", "torch.utils.cpp_extension", "torch.utils.model_zoo",
    "torch.utils._", "torch._",
)  # fmt: skip


def check_targets(cfg: DictConfig, key: str = "") -> None:
    """Import every `_target_` of the config and classify the object found, not the string that names it.

    Args:
        cfg: A composed config.
        key: Only this top-level key; an older run may name classes elsewhere that have moved.
    """
    allowed = (*ALLOWED, *read_settings(cfg, Extras).allowed_targets)
    findings = []
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    for path, target in leaves(plain[key] if key else plain, key):
        if path.rpartition(".")[2] != "_target_" or not isinstance(target, str) or target == MISSING:
            continue
        try:
            problem = _rejection(locate(target), allowed)
        except TargetNotFound as error:
            problem = str(error)
        if problem:
            findings.append(f"{path}: {target!r} {problem}")
    if findings:
        raise ConfigError(findings)


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
                # the part itself is missing only if the import system names it
                if not (isinstance(error, ModuleNotFoundError) and error.name == path):
                    reason = f"{path} fails with {type(error).__name__}: {error}"
                    raise TargetNotFound(f"cannot be imported: {reason}") from error
        if found is None:
            raise TargetNotFound(f"does not exist: there is no package {path!r}. Install it or correct the name")
        if not hasattr(found, part):
            raise TargetNotFound(f"does not exist: {parent} has no {part!r}")
        found = getattr(found, part)
    return found


def _rejection(found: Any, allowed: Sequence[str]) -> str:
    """Return why the object may not be called from a config, or an empty string."""
    if isinstance(found, ModuleType) or not callable(found):
        return "is not callable. Name a class or a function"
    owner = getattr(found, "__module__", None)
    if owner is None:  # a bound method: use its class
        owner = getattr(type(getattr(found, "__self__", found)), "__module__", "")
    name = f"{owner}.{getattr(found, '__qualname__', type(found).__qualname__)}"
    if is_within(name, REFUSED) or not is_within(name, allowed):
        return (
            f"is {name}, which configs may not call. "
            f"A config may name classes of {', '.join(allowed)}. Add a package with extras.allowed_targets"
        )
    return ""


def is_within(name: str, roots: Sequence[str]) -> bool:
    """Return whether a dotted name is one of `roots` or below one; a root that ends with `_` is a prefix."""
    return any(name == root or name.startswith(root if root.endswith("_") else f"{root}.") for root in roots)
