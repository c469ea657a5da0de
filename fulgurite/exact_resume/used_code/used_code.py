"""Collect the user's functions, classes and modules that the objects of a run use."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from types import FunctionType
from typing import Any

import numpy as np

from fulgurite.exact_resume.used_code.reachable import (
    Search,
    assigned_globals,
    imported_modules,
    names_of,
    reach,
    variable_names,
    variables,
)
from fulgurite.exact_resume.values.generator_states import GENERATORS
from fulgurite.exact_resume.values.kinds import is_users

CACHE = type(lru_cache(len))
DRAWS = {
    *(name for name in (*random.__all__, *np.random.__all__) if name.islower() and "state" not in name),
    *("rand", "rand_like", "randn_like", "randint_like", "randperm", "bernoulli", "bernoulli_", "normal_", "uniform_"),
    *("random_", "exponential_", "cauchy_", "geometric_", "log_normal_", "dropout", "rsample", "token_hex", "urandom"),
} - {"bytes", "f", "power", "test"}


class UsedCode:
    """The functions, classes and modules of the user that objects use.

    Args:
        roots: The objects, and functions whose attributes are saved otherwise.

    Attributes:
        modules: Names of variables by module.
        assigned: Modules and variables that functions assign.
        texts: Texts that may be names of environment variables.
        classes: The classes, as keys, in their order.
        caches: An `lru_cache` of random numbers each, by module and name.
        functions: By module and name.
        awaited: Names of modules that code imports later.
    """

    def __init__(self, *roots: Any) -> None:
        self.modules: dict[str, set[str]] = {}
        self.assigned: set[tuple[str, str]] = set()
        self.texts: set[str] = set()
        self.classes: dict[type, None] = {}
        self.caches: dict[str, dict[str, Any]] = {}
        self.functions: dict[str, dict[str, FunctionType]] = {}
        self.awaited: set[str] = set()
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._roots: dict[int, Any] = {}
        self._codes: set[Any] = set()  # the classes, and the code of the functions
        self._search: Search | None = Search()
        self.add(roots)

    def follow(self, roots: Iterable[Any]) -> bool:
        """Search from the roots that are new; return False where it has to be done anew."""
        present = {id(root): root for root in roots}
        new = [root for key, root in present.items() if key not in self._roots]
        if not self._roots.keys() <= present.keys() or (new and self._search is None):
            return False
        if new:
            self.add(new)
        return True

    def lacking(self, values: Iterable[Any]) -> list[Any]:
        """Return the user's functions, classes and objects of classes whose code was not found."""
        return [value for value in values if _is_users_code(value) and _code_of(value) not in self._codes]

    def arrived(self) -> list[Any]:
        """Return the functions and classes of the user's modules that code has imported since it was found."""
        names = self.awaited & sys.modules.keys()
        self.awaited -= names
        parts = [part for name in names if is_users(name) for part in vars(sys.modules[name]).values()]
        return [part for part in parts if isinstance(part, (FunctionType, type)) and part.__module__ in names]

    @property
    def is_searching(self) -> bool:
        """Whether the search continues with roots that come later."""
        return self._search is not None

    def end_search(self) -> None:
        """Release the objects that were found; roots that come later need a search of all."""
        self._search = None

    def add(self, roots: Iterable[Any], *, keep: bool = True) -> None:
        """Search from more roots. With `keep` they stay roots, otherwise only their code does."""
        roots = list(roots)
        if keep:
            self._roots |= {id(root): root for root in roots}
        else:
            self._codes.update(map(_code_of, roots))  # also where the search ends before it has them
        for each in self.functions.values():  # a collate function has a key of its own
            for name in [name for name, function in each.items() if id(function) in self._roots]:
                del each[name]
        present = {id(function) for each in self.functions.values() for function in each.values()}
        for value in (self._search or Search()).add(*roots):
            if isinstance(value, FunctionType) and id(value) not in present:
                self._add_function(value)
            if isinstance(value, CACHE) and draws_random_numbers(value):
                self.modules.setdefault(value.__module__, set())
                self.caches.setdefault(value.__module__, {})[value.__qualname__] = value
            for kind in value.__mro__ if isinstance(value, type) else ():
                if is_users(kind.__module__):
                    self.classes[kind] = None
                    self._codes.add(kind)
                    self.modules.setdefault(kind.__module__, set())

    def _add_function(self, function: FunctionType) -> None:
        for namespace, name in variables(function):
            self.modules.setdefault(namespace["__name__"], set()).add(name)
        name, home = function.__qualname__, function.__globals__["__name__"]
        self.assigned |= {(home, name) for name in assigned_globals(function)}
        if id(function) not in self._roots:
            unique = f"{name} {self._numbers[home, name]}" if self._numbers[home, name] else name
            self.modules.setdefault(home, set())
            self.functions.setdefault(home, {})[unique] = function
        self._numbers[home, name] += 1
        self._codes.add(function.__code__)
        self.texts |= set(variable_names(function))
        self.awaited |= {name for name in imported_modules(function) if name not in sys.modules}


def _is_users_code(value: Any) -> bool:
    kind: Any = value if isinstance(value, (FunctionType, type)) else type(value)
    return is_users(kind.__module__)


def _code_of(value: Any) -> Any:
    """Return the code of a function, a class, or the class of an object."""
    if isinstance(value, FunctionType):
        return value.__code__
    return value if isinstance(value, type) else type(value)


def draws_random_numbers(function: Any) -> bool:
    """Return whether the code of a function, and what it calls, names a function that draws random numbers."""
    reached = reach(function)
    functions = [value for value in reached if isinstance(value, FunctionType)]
    named = any(not DRAWS.isdisjoint(names_of(value)) for value in functions)
    return named or any(isinstance(value, GENERATORS) for value in reached)
