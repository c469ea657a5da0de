"""List the state that objects and functions reach, by the names that users know it by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from fulgurite.exact_resume.order.reachable import attributes, closure, is_users, reach, variables

CODE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, staticmethod, classmethod, property)


def reached_state(*roots: Any) -> tuple[dict[str, list[Any]], list[Any]]:
    """Return the values that user code may change, by name, and the objects that hold them.

    Args:
        roots: Data sets, transforms, models or functions.

    Returns:
        Values of attributes (`Class.x`), closures (`function.x`) and variables (`module.x`): one for each object. And
        what was reached, each part of which has names of its own.
    """
    found: defaultdict[str, list[Any]] = defaultdict(list)
    reached = reach(*roots)
    for value in reached:
        for name, part in _values_of(value):
            if not isinstance(part, CODE) and not name.rpartition(".")[2].startswith("__"):
                found[name].append(part)
    return found, reached


def _values_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, FunctionType):
        for name, part in {**vars(value), **closure(value)}.items():
            yield f"{value.__qualname__}.{name}", part
        for namespace, name in variables(value):
            yield f"{namespace.get('__name__')}.{name}", namespace[name]
    elif isinstance(value, type):
        for kind in value.__mro__:
            if is_users(kind.__module__):
                yield from ((f"{kind.__qualname__}.{name}", part) for name, part in vars(kind).items())
    elif is_users(type(value).__module__):
        yield from ((f"{type(value).__qualname__}.{name}", part) for name, part in attributes(value).items())
