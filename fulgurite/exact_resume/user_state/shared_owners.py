"""Find state that is in no attribute of an object of the run: of classes and of modules."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import Trainer

from fulgurite.exact_resume.objects.generator_states import GENERATORS
from fulgurite.exact_resume.objects.kinds import ATOMS, is_users
from fulgurite.exact_resume.order.reachable import reach, variables
from fulgurite.exact_resume.user_state.loader_owners import LOADERS, Linked, Owner, collate_of, datasets_of, samplers_of

DATA = (*ATOMS, list, tuple, dict, set, deque, torch.Tensor, np.ndarray, *GENERATORS)
REMEDY = "Keep it in an attribute of the object (self.x), which is saved"
SAMPLER_REMEDY = "Keep it in an attribute of the sampler (self.x)"  # which is saved as of the start of its pass


@dataclass
class _Reached:
    roots: list[Any] = field(default_factory=list)
    modules: dict[str, set[str]] = field(default_factory=dict)  # names of variables by module
    classes: dict[type, None] = field(default_factory=dict)


_reached: WeakKeyDictionary[Trainer, tuple[_Reached, _Reached]] = WeakKeyDictionary()  # all, and of samplers


def shared_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the user's classes and modules that the code of a run uses."""
    every, samplers = _reach(trainer)
    for kind in every.classes:
        name = f"{kind.__module__}.{kind.__qualname__}"
        is_samplers = kind in samplers.classes
        remedy = SAMPLER_REMEDY if is_samplers else REMEDY
        values = _variables(kind, frozenset())
        yield Owner(f"class {name}", kind.__qualname__, values, frozenset(), remedy, restores=not is_samplers)
    for name in every.modules:
        if (module := sys.modules.get(name)) is not None and is_users(name):
            theirs = samplers.modules.get(name, set())
            rest = _variables(module, theirs)
            yield Owner(f"module {name}", name, rest, frozenset(), REMEDY)
            own = _variables(module, vars(module).keys() - theirs)
            yield Owner(f"module {name} of samplers", name, own, frozenset(), SAMPLER_REMEDY, restores=False)


def _reach(trainer: Trainer) -> tuple[_Reached, _Reached]:
    """Return what the code of a run and of its samplers reaches; walk again only where the run has other objects."""
    roots = [trainer.lightning_module, getattr(trainer, "datamodule", None), *vars(trainer)["callbacks"]]
    samplers: list[Any] = []
    for loader in chain.from_iterable(vars(trainer).get(LOADERS, {}).values()):
        roots += [*datasets_of(loader), collate_of(loader), getattr(loader, "worker_init_fn", None)]
        samplers += [type(sampler) for _, sampler in samplers_of(loader)]
    roots += samplers
    every, of_samplers = _reached.get(trainer, (_Reached(), _Reached()))
    if list(map(id, every.roots)) != list(map(id, roots)):
        # what a sampler changes when its pass begins would change twice in a pass that is resumed
        every, of_samplers = _reached[trainer] = _find(roots), _find(samplers)
    return every, of_samplers


def _find(roots: list[Any]) -> _Reached:
    found = _Reached(roots)
    for value in reach(*roots):
        if isinstance(value, FunctionType):
            for namespace, name in variables(value):
                found.modules.setdefault(namespace["__name__"], set()).add(name)
        for kind in value.__mro__ if isinstance(value, type) else ():
            if is_users(kind.__module__):
                found.classes[kind] = None
                found.modules.setdefault(kind.__module__, set())
    return found


def _variables(holder: Any, without: Collection[str]) -> Linked:
    """Return the numbers, text, tensors and containers of a class or a module, without imported objects."""
    found = {
        name: value
        for name, value in vars(holder).items()
        if not name.startswith("__") and name not in without and (isinstance(value, DATA) or _is_object(value))
    }
    return Linked(found, partial(setattr, holder))


def _is_object(value: Any) -> bool:
    return is_users(type(value).__module__) and not isinstance(value, type)
