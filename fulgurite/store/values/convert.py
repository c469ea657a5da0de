"""Turn a value of a config into the type that a program reads, or say why it is not of that type."""

from __future__ import annotations

import enum
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fulgurite.core.errors import suggest_or_list
from fulgurite.store.values.layers import FALSE, TRUE, plain

Problems = list[tuple[str, Any, str]]  # key, value, what is wrong
ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "<absent>"})()  # no value of a config
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_WHOLE = 2**53  # below, each float without a fraction is one whole number


def convert(value: Any, kind: Any, key: str, problems: Problems, *, exact: bool = False) -> Any:
    """Return a value as a type; adds to `problems` what is wrong, and then returns what may be anything.

    Args:
        value: Of the config.
        kind: `int`, `float`, `bool`, `str`, `Path`, `timedelta`, `datetime`, an Enum, a Literal, a Union, `list[int]`,
            `tuple[int, ...]`, `dict[str, int]`, or a dataclass.
        key: Dotted key, for messages.
        problems: Filled with key, value and problem.
        exact: Whether keys that a dataclass does not have are problems.
    """
    origin = get_origin(kind) or kind
    if kind is Any or kind is object:
        return value
    if origin in {Union, types.UnionType}:
        return _union(value, kind, key, problems, exact)
    if origin is Literal:
        return _literal(value, get_args(kind), key, problems)
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, key, problems, exact=exact)
    if origin in _COLLECTIONS:
        return _COLLECTIONS[origin](value, kind, key, problems, exact)
    for known, read in _SCALARS.items():
        if isinstance(origin, type) and issubclass(origin, known):
            found = read(value, origin)
            if found is ABSENT:
                problems.append((key, value, f"is not {_NAMES.get(known) or _members(origin)}"))
            return found
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    problems.append((key, value, f"is not {getattr(kind, '__name__', kind)}"))
    return ABSENT


def build(cls: type[Any], value: Any, key: str, problems: Problems, *, exact: bool = False) -> Any:
    """Return an instance of a dataclass made of a group of keys; adds to `problems` what is wrong.

    A field's key is its name, or `metadata={"key": name}`. A key that is missing leaves the default of its field.
    """
    if not isinstance(value, Mapping):
        problems.append((key, value, f"is not a group of keys ({cls.__name__})"))
        return ABSENT
    hints, given, before = get_type_hints(cls), {}, len(problems)
    names = {str(each.metadata.get("key", each.name)): each for each in fields(cls) if each.init}
    for name, each in names.items():
        path = f"{key}.{name}" if key else name
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        if name in value:
            given[each.name] = convert(value[name], hints[each.name], path, problems, exact=exact)
        elif not has_default and is_dataclass(hints[each.name]):  # names the keys that are missing in it
            given[each.name] = build(hints[each.name], {}, path, problems, exact=exact)
        elif not has_default:
            problems.append((path, ABSENT, "is missing"))
    for name in [name for name in value if name not in names] if exact else ():
        path = f"{key}.{name}" if key else name
        problems.append((path, value[name], f"is not a field of {cls.__name__}{suggest_or_list(name, names)}"))
    if len(problems) > before:
        return ABSENT
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:  # of __post_init__
        problems.append((key or cls.__name__, ABSENT, f"is refused by {cls.__name__} ({error})"))
        return ABSENT


def _union(value: Any, kind: Any, key: str, problems: Problems, exact: bool) -> Any:
    members = [member for member in get_args(kind) if member is not type(None)]
    if value is None and len(members) < len(get_args(kind)):
        return None
    for member in members:
        if isinstance(member, type) and type(value) is member:
            return value
    first: Problems = []
    for member in members:
        found: Problems = []
        converted = convert(value, member, key, found, exact=exact)
        if not found:
            return converted
        first = first or found
    single = (key, value, f"is not any of {', '.join(getattr(each, '__name__', str(each)) for each in members)}")
    problems += first if len(members) == 1 else [single]
    return ABSENT


def _literal(value: Any, choices: tuple[Any, ...], key: str, problems: Problems) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    text = next((choice for choice in choices if isinstance(value, str) and str(choice) == value.strip()), ABSENT)
    if text is ABSENT:
        problems.append((key, value, f"is not one of {', '.join(map(str, choices))}"))
    return text


def _items(value: Any) -> Sequence[Any] | None:
    if isinstance(value, str):  # an environment variable, a flag
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return value if isinstance(value, (tuple, list)) else None


def _list(value: Any, kind: Any, key: str, problems: Problems, exact: bool) -> Any:
    items = _items(value)
    if items is None:
        problems.append((key, value, "is not a list"))
        return ABSENT
    member = (*get_args(kind), Any)[0]
    return [convert(item, member, f"{key}[{at}]", problems, exact=exact) for at, item in enumerate(items)]


def _tuple(value: Any, kind: Any, key: str, problems: Problems, exact: bool) -> Any:
    members, items = get_args(kind), _items(value)
    if not members or members[-1] is Ellipsis or items is None:
        found = _list(value, kind, key, problems, exact)
        return tuple(found) if isinstance(found, list) else found
    if len(items) != len(members):
        problems.append((key, value, f"does not have {len(members)} items"))
        return ABSENT
    pairs = enumerate(zip(items, members, strict=True))
    return tuple(convert(item, member, f"{key}[{at}]", problems, exact=exact) for at, (item, member) in pairs)


def _dict(value: Any, kind: Any, key: str, problems: Problems, exact: bool) -> Any:
    if not isinstance(value, Mapping):
        problems.append((key, value, "is not a group of keys"))
        return ABSENT
    member = (*get_args(kind), Any, Any)[1]
    if member is Any:
        return plain(value)
    return {name: convert(item, member, f"{key}.{name}", problems, exact=exact) for name, item in value.items()}


def _bool(value: Any, _: Any) -> Any:
    word = str(value).strip().lower()
    if isinstance(value, bool):
        return value
    return word in TRUE if isinstance(value, (str, int)) and word in TRUE | FALSE else ABSENT


def _int(value: Any, _: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _float(value, None)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    is_whole = isinstance(number, float) and number.is_integer() and abs(number) < _WHOLE
    return int(number) if is_whole else ABSENT


def _float(value: Any, _: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ABSENT
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return ABSENT
    return ABSENT if math.isnan(number) else number


def _text(value: Any, _: Any) -> Any:
    return value if isinstance(value, str) else ABSENT  # YAML reads 1.10 as 1.1: a number is not its text


def _path(value: Any, kind: Any) -> Any:
    return kind(value) if isinstance(value, (str, Path)) else ABSENT


def _seconds(value: Any, _: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return timedelta(seconds=value)
        if clock := _CLOCK.fullmatch(str(value).strip()):
            days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
            return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if isinstance(value, str) and re.fullmatch(f"({_DURATION.pattern})+", value.strip()):
            return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(value)))
    except (OverflowError, ValueError):
        return ABSENT
    return ABSENT


def _moment(value: Any, kind: Any) -> Any:
    if isinstance(value, kind) and (kind is datetime or not isinstance(value, datetime)):
        return value
    try:
        return kind.fromisoformat(value.strip().replace("Z", "+00:00")) if isinstance(value, str) else ABSENT
    except ValueError:
        return ABSENT


def _member(value: Any, kind: Any) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value in kind.__members__:
        return kind[value]
    return next((each for each in kind if type(each.value) is type(value) and each.value == value), ABSENT)


def _members(kind: Any) -> str:
    return f"one of {', '.join(kind.__members__)}"


# the first that a type is, or is derived from: bool is an int, datetime is a date, an Enum may be a str
_SCALARS: dict[type, Callable[[Any, Any], Any]] = {
    enum.Enum: _member, bool: _bool, int: _int, float: _float, str: _text,
    Path: _path, timedelta: _seconds, datetime: _moment, date: _moment,
}  # fmt: skip
_NAMES: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path",
    timedelta: "a duration such as 90s, 1h30m or 01:30:00", datetime: "a date and time", date: "a date",
}  # fmt: skip
_COLLECTIONS: dict[Any, Callable[[Any, Any, str, Problems, bool], Any]] = {
    list: _list, tuple: _tuple, Sequence: _list, dict: _dict, Mapping: _dict,
}  # fmt: skip
