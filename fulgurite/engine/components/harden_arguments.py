"""Check the arguments of `harden` by its annotations, before anything is changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fulgurite.core.context import setting
from fulgurite.core.errors import ConfigError
from fulgurite.engine.components.kinds import is_of_pytorch_lightning

SECONDS = ("grace_seconds", "worker_timeout_seconds")
_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}  # numpy's are numbers too
_SHOWN = (str, int, float, NoneType)


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse values of other types than the annotations of a function, negative times and metadata without JSON.

    Raises:
        ConfigError: All findings, one line each.
    """
    hints = get_type_hints(function)
    findings = [line for name, value in given.items() for line in _findings(name, value, hints[name])]
    if findings:
        raise ConfigError(findings)


def _findings(name: str, value: Any, hint: Any) -> Iterator[str]:
    shown = repr(value) if isinstance(value, _SHOWN) else "..."
    subject = setting(f"resilience.{name}={shown}", f"harden({name}={shown})")
    if not _fits(value, hint):
        yield f"{subject}: {_wrong(value, hint)}."
    elif name in SECONDS and not 0 <= value < math.inf:
        yield f"{subject}: is not a time. Set a number of seconds, 0 or more."
    elif name == "checkpoint_metadata":
        try:
            json.dumps(dict(value or {}))
        except (TypeError, ValueError) as error:
            yield f"{subject}: has no form in JSON ({error}). Pass text, numbers, lists and dictionaries."


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    kind = _NUMBERS.get(hint, get_origin(hint) or hint)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _wrong(value: Any, hint: Any) -> str:
    if is_of_pytorch_lightning(type(value)):
        return "is of pytorch_lightning. Import from lightning.pytorch"
    kind = f"is of type {type(value).__name__}"
    if get_origin(hint) is Literal:
        kind = "is not known"
    elif isinstance(value, type):
        kind = f"is the class {value.__name__} itself, not an object"
    return f"{kind}. Pass {_describe(hint)}"


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if isinstance(hint, UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    return "None" if hint is NoneType else str((get_origin(hint) or hint).__name__)
