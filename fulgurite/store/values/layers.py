"""Merge the values of loaders by their order: the last loader that has a key gives its value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isnan
from types import MappingProxyType
from typing import Any

from fulgurite.core.errors import UserError

MAX_DEPTH = 100
FALSE, TRUE = frozenset({"false", "no", "off", "0"}), frozenset({"true", "yes", "on", "1"})


@dataclass(frozen=True)
class Layer:
    """What one loader gave at its last good load.

    Attributes:
        name: Of the loader.
        leaves: Dotted key to value; a list is a tuple, a dictionary in it is read-only.
        is_text: The source holds text only, so that `0.1` replaces a number by a number.
    """

    name: str
    leaves: Mapping[str, Any]
    is_text: bool = False


def leaves_of(values: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return nested values as dotted keys; `{"a.b": 1}` is `{"a": {"b": 1}}`.

    Args:
        values: As a parser returns them.
        name: Of the loader, for messages.

    Raises:
        UserError: A key stands twice, is empty, or is nested too deeply.
    """
    leaves: dict[str, Any] = {}
    _collect(values, "", name, leaves, 0)
    groups = {key[:end] for key in leaves for end, sign in enumerate(key) if sign == "."}
    if twice := sorted(groups & leaves.keys()):
        raise UserError(f"{name}: {twice[0]} is a value and a group of keys. Remove one of them.")
    return leaves


def _collect(values: Mapping[Any, Any], prefix: str, name: str, leaves: dict[str, Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UserError(f"{name}: is nested more than {MAX_DEPTH} levels deep. Use fewer levels.")
    for key, value in values.items():
        path = f"{prefix}{key}"
        if not all(path.split(".")):
            raise UserError(f"{name}: the key {path!r} has an empty part. Name it.")
        if isinstance(value, Mapping):
            _collect(value, f"{path}.", name, leaves, depth + 1)
        elif path in leaves:
            raise UserError(f"{name}: the key {path} stands twice. Remove one of them.")
        else:
            leaves[path] = _frozen(value, name, depth)


def _frozen(value: Any, name: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise UserError(f"{name}: is nested more than {MAX_DEPTH} levels deep. Use fewer levels.")
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item, name, depth + 1) for item in value)
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): _frozen(item, name, depth + 1) for key, item in value.items()})
    return value


def merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the merged leaves, and for each the name of the loader that gave it.

    A value of a later layer replaces a group of an earlier one, and the other way round.
    """
    leaves: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        groups = {key[:end] for key in leaves for end, sign in enumerate(key) if sign == "."}
        for key, value in layer.leaves.items():
            for end in (end for end, sign in enumerate(key) if sign == "."):
                leaves.pop(key[:end], None)
            for below in [other for other in leaves if other.startswith(f"{key}.")] if key in groups else ():
                del leaves[below]
            leaves[key] = _like(value, leaves.get(key)) if layer.is_text else value
            origins[key] = layer.name
    return leaves, {key: origins[key] for key in leaves}


def _like(text: Any, replaced: Any) -> Any:
    """Return the number or the boolean that a text is, where it replaces one; else the text itself."""
    if isinstance(replaced, bool) and isinstance(text, str):
        word = text.strip().lower()
        return word in TRUE if word in TRUE | FALSE else text
    if isinstance(replaced, (int, float)) and isinstance(text, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(text)
    return text


def nested(leaves: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the leaves as a nested read-only dictionary, and each group in it by its dotted key."""
    root: dict[str, Any] = {}
    plain: dict[str, dict[str, Any]] = {"": root}
    for key, value in leaves.items():
        parent, _, last = key.rpartition(".")
        _group(parent, plain)[last] = value
    shown = {key: MappingProxyType(content) for key, content in plain.items()}
    for key in plain:
        if key:
            parent, _, last = key.rpartition(".")
            plain[parent][last] = shown[key]
    return shown[""], {key: content for key, content in shown.items() if key}


def _group(key: str, plain: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if key not in plain:
        _group(key.rpartition(".")[0], plain)
        plain[key] = {}
    return plain[key]


def plain(value: Any) -> Any:
    """Return a copy of a value with dictionaries and lists that may be changed."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of one type: 1, 1.0 and True differ, NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    try:
        return bool(one == other or (isinstance(one, float) and isnan(one) and isnan(other)))
    except (TypeError, ValueError):  # an array is neither
        return one is other
