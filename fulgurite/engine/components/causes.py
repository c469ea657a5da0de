"""Explain in one line why a component rejects its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from traceback import walk_tb
from typing import Any

from omegaconf import OmegaConf

from fulgurite.config.view import leaves
from fulgurite.core.errors import ConfigError, suggest_or_list


def first_cause(error: Exception, key: str, node: Any) -> Exception:
    """Return the error that Hydra's InstantiationException wraps; as a ConfigError for rejected arguments.

    Args:
        error: What `instantiate` raised.
        key: The dotted key of the component.
        node: Its config.
    """
    cause = error.__cause__
    if type(error).__name__ == "InstantiationException" and isinstance(cause, (TypeError, ValueError)):
        found = next(_enum_findings(cause, key, node), None)
        return ConfigError([found or f"{key}: {type(cause).__name__}: {str(cause).splitlines()[0]}"])
    return cause if isinstance(cause, Exception) else error


def _enum_findings(cause: BaseException, key: str, node: Any) -> Iterator[str]:
    """Yield the keys of a value that an Enum does not have, with its choices."""
    frames = walk_tb(cause.__traceback__)
    for kind in dict.fromkeys(frame.f_locals.get("cls") for frame, _ in frames if "cls" in frame.f_locals):
        if not (isinstance(kind, type) and issubclass(kind, Enum)):
            continue
        choices = [str(member.value) for member in kind]
        for path, value in leaves(OmegaConf.to_container(node, resolve=True), key):
            if str(cause) == f"{value!r} is not a valid {kind.__qualname__}":
                near = suggest_or_list(str(value), choices, "It has")
                yield f"{path}={value}: is not a value of {kind.__name__}{near}"
