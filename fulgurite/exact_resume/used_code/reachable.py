"""Find what objects and functions of the user reach: attributes, closures, and variables of the user's modules."""

from __future__ import annotations

import dis
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache, partial
from importlib.util import resolve_name
from itertools import islice
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import get_worker_info

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.values.kinds import closure, is_users, parts_of, unwrapped

LEAVES = (torch.Tensor, np.ndarray, np.generic, str, bytes, int, float, complex, type(None), CodeType)
# of the many that a class or a module of torch holds
STATELESS = (WrapperDescriptorType, MethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, torch.dtype)
CONTAINERS = (list, tuple, deque, Mapping)
# a trainer reaches everything; a loader's generator is its own
STOPS = ("lightning.", "pytorch_lightning.", "torch.optim.", "torch.utils.data.dataloader.", "logging.", "threading.")
OF_ENVIRONMENT = {"environ", "putenv", "setenv"}  # what code names that changes environment variables
OURS = ("fulgurite.exact_resume.", "fulgurite.core.")
MAX_OBJECTS = 20_000
EMPTY = {dict, list, tuple, set, OrderedDict}  # which hold nothing where they are false
PLAIN = {*LEAVES, bool, list, tuple, dict}  # items of a long container that are not searched
SHORT, LONG = 64, 100_000  # items of a container: a list of transforms is short, a list of files is long
MANY = 1_000  # objects of one class in a long container: the ones after these are taken to be like them


class Search:
    """What roots reach: generators, objects, classes and functions, in an order that is always the same.

    It keeps all that it found, so that it continues where it stopped when more roots come.

    Args:
        roots: Data sets, transforms, models or functions. Of classes and functions only the user's count.
    """

    def __init__(self, *roots: Any) -> None:
        self.found: list[Any] = []
        self._seen: dict[int, Any] = {}  # with the object, so that no later one gets its id
        self.add(*roots)

    def add(self, *roots: Any) -> list[Any]:
        """Search from more roots, and return what the former ones do not reach."""
        found, seen, num_before = self.found, self._seen, len(self.found)
        starts, stack = set(map(id, roots)), list(filter(_may_reach, reversed(roots)))
        while stack:
            value = unwrapped(stack.pop())
            if id(value) in seen:
                continue
            kind: Any = type(value)
            role = _role(kind)
            is_stop = role == "stop" or (role == "code" and not is_users(value.__module__))
            if is_stop and id(value) not in starts:
                continue
            if len(found) >= MAX_OBJECTS:
                _name_limit(value)
                break
            seen[id(value)] = value
            if role != "container":
                found.append(value)
            stack.extend(filter(_may_reach, reversed(_parts(value))))
        return found[num_before:]


def reach(*roots: Any) -> list[Any]:
    """Return what a `Search` finds."""
    return Search(*roots).found


def _name_limit(value: Any) -> None:
    """Name that a search ended; a worker searches what the training process searched."""
    if get_worker_info() is None:
        kind = type(value).__qualname__
        name_inexact(
            kind,
            f"the run has more than {MAX_OBJECTS:,} objects, and the code of those from this one on is not searched "
            "for generators and for variables that change. Keep many examples in arrays or in plain lists.",
        )


def _may_reach(value: Any) -> bool:
    """Return whether a value is worth a visit: most that a module of torch holds are empty containers and numbers."""
    kind: Any = type(value)
    return _role(kind) != "leaf" and bool(kind not in EMPTY or value)


def variables(function: FunctionType) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Yield the variables of the user's modules that a function uses, each as namespace and name."""
    global_names, _, attribute_names, _ = _names_in(function.__code__)
    modules: list[ModuleType] = []
    for name in global_names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            modules.append(value)
        elif name in function.__globals__:
            yield function.__globals__, name
    modules += [sys.modules[name] for name in imported_modules(function) if name in sys.modules]
    seen: set[int] = set()
    while modules:
        module = modules.pop(0)
        if id(module) in seen or not is_users(module.__name__):
            continue
        seen.add(id(module))
        for name in attribute_names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                modules.append(value)
            elif name in vars(module):
                yield vars(module), name


def imported_modules(function: FunctionType) -> list[str]:
    """Return the names of the modules that a function may import, by statements and by `import_module`."""
    names = [*_names_in(function.__code__)[1]]
    names += _texts(function.__code__) if "import_module" in names_of(function) else ()
    return [_resolved(name, function.__globals__.get("__package__")) for name in names]


def _resolved(name: str, package: Any) -> str:
    """Return the full name of a module that a function of a package imports, such as `.helper`."""
    try:
        return resolve_name(name, package or "")
    except ImportError:  # beyond the top of the package
        return ""


def _texts(code: CodeType) -> Iterator[str]:
    return (text for text in _constants(code) if isinstance(text, str))


def assigned_globals(function: FunctionType) -> tuple[str, ...]:
    """Return the variables of its module that a function assigns."""
    return _names_in(function.__code__)[3]


def names_of(function: FunctionType) -> tuple[str, ...]:
    """Return the global variables and the attributes that a function names."""
    global_names, _, attribute_names, _ = _names_in(function.__code__)
    return global_names + attribute_names


def variable_names(function: FunctionType) -> Iterator[str]:
    """Yield the texts of a function that may be names of environment variables, where it uses those."""
    if not OF_ENVIRONMENT.isdisjoint(names_of(function)):
        texts = [*_texts(function.__code__), *(namespace[name] for namespace, name in variables(function))]
        yield from (text for text in texts if isinstance(text, str) and len(text) > 1)


def _constants(code: CodeType) -> Iterator[Any]:
    for value in code.co_consts:
        yield from _constants(value) if isinstance(value, CodeType) else (value,)


@cache
def _names_in(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """Return the global variables, the imported modules and the attributes that code and its inner functions name.

    The last ones are the global variables that they assign.
    """
    names: dict[str, None] = {}
    imported: dict[str, None] = {}
    attribute_names: dict[str, None] = dict.fromkeys(code.co_names)
    assigned: dict[str, None] = {}
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]  # of more than 256 names
    for number, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_NAME"):
            names[step.argval] = None
            assigned.update({step.argval: None} if step.opname == "STORE_GLOBAL" else {})
        elif step.opname == "IMPORT_NAME":
            level, parts = steps[number - 2].argval, steps[number - 1].argval or ()
            module = "." * (level if isinstance(level, int) else 0) + step.argval
            # a part may be a module too
            imported.update(dict.fromkeys([module, *(f"{module.rstrip('.')}.{part}" for part in parts)]))
    found = names, imported, attribute_names, assigned
    for inner in filter(CodeType.__instancecheck__, code.co_consts):
        for mine, theirs in zip(found, _names_in(inner), strict=True):
            mine.update(dict.fromkeys(theirs))
    return tuple(map(tuple, found))


def _parts(value: Any) -> list[Any]:
    """Return what a container, a function, a class or an object holds."""
    if isinstance(value, CONTAINERS):
        return _items(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, FunctionType):
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        used = [namespace[name] for namespace, name in variables(value)]
        return [*vars(value).values(), *closure(value).values(), *defaults, *used]
    if isinstance(value, type):
        kinds = [kind for each in (value, type(value)) for kind in each.__mro__ if is_users(kind.__module__)]
        return [part for kind in kinds for name, part in vars(kind).items() if name not in ("__dict__", "__weakref__")]
    return [*parts_of(value).values(), type(value)]


def _items(value: Any) -> list[Any]:
    items = list(value.values()) if isinstance(value, Mapping) else list(islice(value, LONG))
    if len(items) <= SHORT:
        return items
    kept: list[Any] = []
    num_of: Counter[type] = Counter()
    for item in items:
        num_of[type(item)] += 1
        if type(item) not in PLAIN and num_of[type(item)] <= MANY:
            kept.append(item)
    return kept


@cache
def _role(kind: Any) -> str:
    """Return what objects of a class are in a walk: "leaf", "container", "code", "stop", or "" for all others."""
    if issubclass(kind, LEAVES + STATELESS):
        return "leaf"
    if issubclass(kind, (FunctionType, type)):
        return "code"
    if issubclass(kind, (ModuleType, LightningModule)) or f"{kind.__module__}.".startswith(STOPS + OURS):
        return "stop"
    return "container" if issubclass(kind, CONTAINERS) else ""
