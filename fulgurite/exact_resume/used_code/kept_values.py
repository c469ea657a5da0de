"""Read and write what classes, modules and functions keep between calls."""

from __future__ import annotations

import sys
from collections import UserDict, deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch

from fulgurite.exact_resume.used_code.used_code import UsedCode
from fulgurite.exact_resume.values.generator_states import GENERATORS
from fulgurite.exact_resume.values.kinds import ATOMS, CODE, DEFAULTS, is_infrastructure, is_users, parts_of, set_part

DATA = (*ATOMS, list, tuple, dict, set, deque, torch.Tensor, np.ndarray, *GENERATORS)


class Linked(UserDict[str, Any]):
    """Values that are written to what holds them too: `write` gets the name and the value of each one that is set."""

    def __init__(self, values: Mapping[str, Any], write: Callable[[str, Any], None]) -> None:
        super().__init__()
        self.data = dict(values)
        self._write = write

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value
        self._write(name, value)


def late_values(late: UsedCode, known: UsedCode) -> dict[str, dict[str, Any]]:
    """Return what code keeps that other code does not have, by module and name."""
    found: dict[str, dict[str, Any]] = {}
    for kind in late.classes.keys() - known.classes.keys():
        values = {f"{kind.__qualname__}.{name}": part for name, part in variables_of(kind, ()).items()}
        found.setdefault(kind.__module__, {}).update(values)
    for home, names in late.modules.items():
        if (module := sys.modules.get(home)) is not None and is_users(home):
            used = {name: vars(module)[name] for name in names - known.modules.get(home, set()) if name in vars(module)}
            values = {name: part for name, part in used.items() if not isinstance(part, CODE)}
            present = known.functions.get(home, {})
            functions = {name: each for name, each in late.functions.get(home, {}).items() if name not in present}
            found.setdefault(home, {}).update({**values, **held_by(functions)})
    return found


def held_by(functions: Mapping[str, FunctionType]) -> Linked:
    """Return what functions keep between calls, by name: attributes, closure, and defaults that may change."""
    found: dict[str, Any] = {}
    for function_name, function in functions.items():
        if not (function.__closure__ or vars(function) or function.__defaults__ or function.__kwdefaults__):
            continue  # as most
        for name, part in parts_of(function).items():
            values = part.values() if isinstance(part, dict) else part
            is_fixed = name in DEFAULTS and all(type(each) in ATOMS for each in values)
            if not is_fixed and not isinstance(part, CODE):
                found[f"{function_name}.{name}"] = part
    return Linked(found, partial(_set_held, functions))


def _set_held(functions: Mapping[str, FunctionType], path: str, part: Any) -> None:
    function_name, _, name = path.rpartition(".")
    if function_name in functions:  # code that changed may not have it
        set_part(functions[function_name], name, part)


def variables_of(
    holder: Any, without: Collection[str], used: Collection[str] = (), assigned: Collection[str] = ()
) -> Linked:
    """Return the data of a class or a module, without imported objects.

    Args:
        holder: The class or module.
        without: Names to leave out.
        used: Names that code uses: objects of libraries count too.
        assigned: Names that code assigns: what is no data counts too.
    """
    found = {
        name: value
        for name, value in vars(holder).items()
        if not name.startswith("__")
        and name not in without
        and (isinstance(value, DATA) or _is_object(value) or (name in used and _is_state(value)) or name in assigned)
    }
    return Linked(found, partial(setattr, holder))


def _is_object(value: Any) -> bool:
    return is_users(type(value).__module__) and not isinstance(value, type)


def _is_state(value: Any) -> bool:
    """Return whether a value of a library is an object that may change."""
    kind: Any = type(value)
    return not isinstance(value, CODE) and kind.__module__ != "typing" and not is_infrastructure(kind)
