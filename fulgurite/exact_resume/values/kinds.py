"""Classify objects of user code: code, infrastructure, and objects whose attributes hold state."""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import cache, partial
from io import IOBase
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, cast
from weakref import ReferenceType, WeakKeyDictionary, WeakValueDictionary

import torch
from lightning.fabric.utilities import AttributeDict

ATOMS = (type(None), bool, int, float, complex, str, bytes)
CONTAINERS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (list, tuple, set, frozenset, torch.Size, deque, Counter, dict, OrderedDict, defaultdict, AttributeDict)
}
DEFAULTS = ("__defaults__", "__kwdefaults__")
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
# objects of these hold no state of a training, or Lightning saves it
INFRASTRUCTURE = (
    *("lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "fulgurite"),
    *("logging", "threading", "_thread", "weakref", "subprocess", "concurrent", "asyncio", "_queue", "socket"),
    *("multiprocessing.context", "multiprocessing.synchronize", "multiprocessing.pool", "multiprocessing.queues"),
    *(f"torch.{name}" for name in ("cuda", "distributed", "fx", "jit", "profiler", "_dynamo", "_ops", "_C")),
    *("torch.utils.tensorboard", "tensorboard", "tensorboardX", "wandb", "mlflow", "neptune", "comet_ml", "aim"),
    *("_io", "h5py", "zipfile", "tarfile", "lmdb", "sqlite3", "tqdm", "rich", "tempfile"),
)
LIBRARIES = {"lightning", "pytorch_lightning", "fulgurite", "torch", "torchmetrics", "builtins", "abc", "typing"}
INSTALL_FOLDERS = {"site-packages", "dist-packages"}
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@cache
def is_users(module: str | None) -> bool:
    """Return whether a module, by its name, is the user's: no library, and not installed."""
    if module == "__main__":
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    # packages of `pip install --user` or of the system are outside the folders of this environment
    is_installed = file.startswith(INSTALLED) or not INSTALL_FOLDERS.isdisjoint(Path(file).parts)
    return bool(file) and str(module).partition(".")[0] not in LIBRARIES and not is_installed


@cache
def is_infrastructure(kind: Any) -> bool:
    """Return whether objects of a class hold no state of a training."""
    holders = (WeakKeyDictionary, WeakValueDictionary, ReferenceType, threading.local, BaseProcess, torch.Generator)
    if issubclass(kind, holders):
        return False
    if is_database(kind):
        return False
    return issubclass(kind, IOBase) or f"{kind.__module__}.".startswith(tuple(f"{name}." for name in INFRASTRUCTURE))


@cache
def is_database(kind: Any) -> bool:
    """Return whether objects of a class are connections to a database, or their cursors."""
    return any(base.__module__ == "sqlite3" and base.__name__ in ("Connection", "Cursor") for base in kind.__mro__)


@cache
def has_position(kind: Any) -> bool:
    """Return whether objects of a class are iterators or processes, whose position cannot be set."""
    if issubclass(kind, BaseProcess):
        return True
    if not issubclass(kind, Iterator) or is_database(kind):
        return False
    return kind is GeneratorType or not is_users(kind.__module__)


@cache
def can_make(kind: Any) -> bool:
    """Return whether an object can be made from its attributes: its class is the user's and has no `__new__`.

    Data sets of torch, such as a Subset, hold nothing but their attributes.
    """
    if kind is SimpleNamespace:
        return True
    is_plain = is_users(kind.__module__) or kind.__module__ == "torch.utils.data.dataset"
    if not is_plain or find_class(class_name(kind)) is not kind or issubclass(kind, torch.nn.Module):
        return False
    return kind.__new__ is object.__new__ or issubclass(kind, tuple)


def class_name(kind: type) -> str:
    """Return the name by which `find_class` finds a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(name: str) -> Any:
    """Return a class of a module that is imported, or None."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def label_of(value: Any) -> str:
    """Return a text that differs between two functions, and between objects of two classes."""
    if isinstance(value, FunctionType):
        return f"function {value.__module__}:{value.__qualname__}:{value.__code__.co_firstlineno}"
    if isinstance(value, (MethodType, BuiltinFunctionType)):
        return f"function {value.__module__}:{value.__qualname__}"
    if isinstance(value, type):
        return f"class {class_name(value)}"
    return f"module {value.__name__}" if isinstance(value, ModuleType) else class_name(type(value))


def describe(value: Any) -> str:
    """Return what a value is, for a message."""
    label = label_of(value)
    return (label.rpartition(":")[0] if isinstance(value, FunctionType) else label).replace(":", ".")


def unwrapped(value: Any) -> Any:
    """Return what a wrapper of the library calls in place of a user's method; other values as they are."""
    while isinstance(value, FunctionType) and "__wrapped__" in vars(value):
        if not str(value.__globals__.get("__name__")).startswith("fulgurite."):
            break  # a wrapper of the user
        value = vars(value)["__wrapped__"]
    return value


def parts_of(value: Any) -> dict[str, Any]:
    """Return what an object holds, by name: its attributes, or what a function closes over."""
    if isinstance(value, FunctionType):
        return _parts_of_function(value) if is_users(value.__globals__.get("__name__", "")) else {}
    if isinstance(value, MethodType):
        return {"__self__": value.__self__, "__func__": value.__func__}
    if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, (type, ModuleType, type(None))):
        return {"__self__": value.__self__}  # such as `draw = rng.random`
    if isinstance(value, CODE):
        return {}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords, **vars(value)}
    if isinstance(value, ContextVar):
        return {"value": value.get()} if value in copy_context() else {}
    if isinstance(value, ReferenceType):
        return {} if value() is None else {"target": value()}
    parts: dict[str, Any] = {}
    for name, member in _slots(cast("Any", type(value))).items():
        with suppress(AttributeError):  # it is not set
            parts[name] = member.__get__(value)
    for name, part in getattr(value, "__dict__", {}).items():
        # most are no hooks: a comparison costs less than a call
        parts[name] = tuple(part.values()) if name[-6:] == "_hooks" and _are_hooks(name, part) else part
    return parts


def _are_hooks(name: str, part: Any) -> bool:
    """Return whether a part is hooks of torch, which numbers them by a global count: a resumed run has other keys."""
    return name.endswith("_hooks") and isinstance(part, OrderedDict)


def set_part(value: Any, name: str, part: Any) -> None:
    """Set what `parts_of` returned, without calling code of the user."""
    if name in _fixed_names(value) or _are_hooks(name, getattr(value, "__dict__", {}).get(name)):
        return  # what they hold was restored in place
    if isinstance(value, ContextVar):
        value.set(part)
        return
    if isinstance(value, FunctionType) and name in DEFAULTS:
        setattr(value, name, part)
        return
    if isinstance(value, FunctionType) and name in value.__code__.co_freevars:
        (value.__closure__ or ())[value.__code__.co_freevars.index(name)].cell_contents = part
        return
    if (slot := _slots(cast("Any", type(value))).get(name)) is not None:
        slot.__set__(value, part)
    else:
        vars(value)[name] = part


def _fixed_names(value: Any) -> tuple[str, ...]:
    """Return the names of the parts that an object keeps for good."""
    if isinstance(value, partial):
        return "func", "args", "keywords"
    if isinstance(value, ReferenceType):
        return ("target",)
    return ("__self__", "__func__") if isinstance(value, (MethodType, BuiltinFunctionType)) else ()


def closure(function: FunctionType) -> dict[str, Any]:
    """Return the variables that a function closes over, by name; without those that have no value yet."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != CellType()}


def _parts_of_function(function: FunctionType) -> dict[str, Any]:
    defaults = {name: getattr(function, name) for name in DEFAULTS}
    return {**closure(function), **{name: held for name, held in defaults.items() if held}, **vars(function)}


@cache
def _slots(kind: Any) -> dict[str, Any]:
    members = [vars(base).items() for base in reversed(kind.__mro__) if "__slots__" in vars(base)]
    return {name: each for items in members for name, each in items if isinstance(each, MemberDescriptorType)}
