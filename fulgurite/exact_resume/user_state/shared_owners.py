"""Find state that is in no attribute of an object of the run: of classes, enumerations, modules and functions."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import Trainer

from fulgurite.exact_resume.objects.generator_states import GENERATORS
from fulgurite.exact_resume.objects.kinds import (
    ATOMS,
    CODE,
    DEFAULTS,
    is_enum,
    is_infrastructure,
    is_users,
    parts_of,
    set_part,
)
from fulgurite.exact_resume.order.generators import draws_random_numbers
from fulgurite.exact_resume.order.reachable import assigned_globals, reach, variable_names, variables
from fulgurite.exact_resume.process.process_state import process_state, set_process_state
from fulgurite.exact_resume.user_state.loader_owners import LOADERS, Linked, Owner, collate_of, datasets_of, samplers_of

DATA = (*ATOMS, list, tuple, dict, set, deque, torch.Tensor, np.ndarray, *GENERATORS)
CACHE = type(lru_cache(len))
REMEDY = "Keep it in an attribute of the object (self.x), which is saved"
NAMED = frozenset[str](), REMEDY
OF_MEMBERS = ("_name_", "_sort_order_", "__objclass__")  # attributes that each member of an enumeration has
SAMPLER_REMEDY = "Keep it in an attribute of the sampler (self.x)"  # which is saved as of the start of its pass


@dataclass
class _Reached:
    roots: list[Any] = field(default_factory=list)
    modules: dict[str, set[str]] = field(default_factory=dict)  # names of variables by module
    assigned: set[tuple[str, str]] = field(default_factory=set)  # modules and variables that functions assign
    texts: set[str] = field(default_factory=set)  # that may be names of environment variables
    classes: dict[type, None] = field(default_factory=dict)
    caches: dict[str, dict[str, Any]] = field(default_factory=dict)  # of random numbers, by module and name
    functions: dict[str, dict[str, FunctionType]] = field(default_factory=dict)  # by module and name


_reached: WeakKeyDictionary[Trainer, tuple[_Reached, _Reached]] = WeakKeyDictionary()  # all, and of samplers


def shared_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the user's classes, enumerations, modules and functions that the code of a run uses, and the process."""
    every, samplers = _reach(trainer)
    write = partial(set_process_state, names=every.texts)
    yield Owner("process", "process", Linked(process_state(trainer, every.texts), write), *NAMED)
    for kind in every.classes:
        name = f"{kind.__module__}.{kind.__qualname__}"
        is_samplers = kind in samplers.classes
        remedy = SAMPLER_REMEDY if is_samplers else REMEDY
        values = _variables(kind, frozenset())
        yield Owner(f"class {name}", kind.__qualname__, values, frozenset(), remedy, restores=not is_samplers)
        for member in getattr(kind, "__members__", {}).values() if is_enum(kind) else ():
            held = {key: part for key, part in vars(member).items() if key not in OF_MEMBERS}
            yield Owner(f"member {name}.{member.name}", str(member), Linked(held, partial(setattr, member)), *NAMED)
    for name in every.modules:
        if (module := sys.modules.get(name)) is not None and is_users(name):
            theirs = samplers.modules.get(name, set())
            used = every.modules[name]
            any_kind = {variable for home, variable in every.assigned if home == name}
            rest = _variables(module, theirs, used, any_kind)
            yield Owner(f"module {name}", name, rest, *NAMED)
            own = _variables(module, vars(module).keys() - theirs, used, any_kind)
            yield Owner(f"module {name} of samplers", name, own, frozenset(), SAMPLER_REMEDY, restores=False)
            caches = {f"{key}.cache": cache.cache_info().misses for key, cache in every.caches.get(name, {}).items()}
            remedy = "Draw it in __init__, or keep it in an attribute"
            yield Owner(f"caches {name}", name, caches, frozenset(), remedy, restores=False)
            functions = every.functions.get(name, {})
            of_samplers = samplers.functions.get(name, {}).keys()
            values = _held_by({name: each for name, each in functions.items() if name not in of_samplers})
            yield Owner(f"functions {name}", name, values, *NAMED)
            values = _held_by({name: each for name, each in functions.items() if name in of_samplers})
            yield Owner(f"functions {name} of samplers", name, values, frozenset(), SAMPLER_REMEDY, restores=False)


def _reach(trainer: Trainer) -> tuple[_Reached, _Reached]:
    """Return what the code of a run and of its samplers reaches; walk again only where the run has other objects."""
    roots = [trainer.lightning_module, getattr(trainer, "datamodule", None), *vars(trainer)["callbacks"]]
    samplers: list[Any] = []
    for loader in chain.from_iterable(vars(trainer).get(LOADERS, {}).values()):
        roots += [*datasets_of(loader), collate_of(loader), _worker_init_of(loader)]
        samplers += [type(sampler) for _, sampler in samplers_of(loader)]
    roots += samplers
    every, of_samplers = _reached.get(trainer, (_Reached(), _Reached()))
    if list(map(id, every.roots)) != list(map(id, roots)):
        # what a sampler changes when its pass begins would change twice in a pass that is resumed
        every, of_samplers = _reached[trainer] = _find(roots), _find(samplers)
    return every, of_samplers


def _worker_init_of(loader: Any) -> Any:
    """Return the user's function that starts workers; Lightning gives its own to a loader after the loader is made."""
    function = getattr(loader, "worker_init_fn", None)
    is_lightnings = isinstance(function, partial) and function.func.__module__.startswith("lightning.")
    return None if is_lightnings else function


def _find(roots: list[Any]) -> _Reached:
    found = _Reached(roots)
    numbers: Counter[tuple[str, str]] = Counter()
    for value in reach(*roots):
        if isinstance(value, FunctionType):
            for namespace, name in variables(value):
                found.modules.setdefault(namespace["__name__"], set()).add(name)
            found.assigned |= {(value.__globals__["__name__"], name) for name in assigned_globals(value)}
            name, home = value.__qualname__, value.__globals__["__name__"]
            if not any(value is root for root in roots):  # a collate function has a key of its own
                unique = f"{name} {numbers[home, name]}" if numbers[home, name] else name
                found.modules.setdefault(home, set())
                found.functions.setdefault(home, {})[unique] = value
            numbers[home, name] += 1
            found.texts |= set(variable_names(value))
        if isinstance(value, CACHE) and draws_random_numbers(value):
            found.modules.setdefault(value.__module__, set())
            found.caches.setdefault(value.__module__, {})[value.__qualname__] = value
        for kind in value.__mro__ if isinstance(value, type) else ():
            if is_users(kind.__module__):
                found.classes[kind] = None
                found.modules.setdefault(kind.__module__, set())
    return found


def _held_by(functions: Mapping[str, FunctionType]) -> Linked:
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


def _variables(
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
