"""Find state that is in no attribute of an object of the run: of classes, enumerations, modules and functions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.process.process_state import process_state, set_process_state
from fulgurite.exact_resume.used_code.kept_values import Linked, held_by, late_values, variables_of
from fulgurite.exact_resume.used_code.used_code import UsedCode
from fulgurite.exact_resume.user_state.loader_owners import (
    LOADERS,
    UNSAVED,
    Owner,
    collate_of,
    datasets_of,
    samplers_of,
)
from fulgurite.exact_resume.values.generator_states import GENERATORS
from fulgurite.exact_resume.values.kinds import is_users

REMEDY = "Keep it in an attribute of the object (self.x), which is saved"
NAMED = frozenset[str](), REMEDY
LATE_REMEDY = "Make the object that uses it in __init__, or keep it in an attribute (self.x)"
OF_MEMBERS = ("_name_", "_sort_order_", "__objclass__")  # attributes that each member of an enumeration has
SAMPLER_REMEDY = "Keep it in an attribute of the sampler (self.x)"  # which is saved as of the start of its pass


_used: WeakKeyDictionary[Trainer, tuple[UsedCode, UsedCode]] = WeakKeyDictionary()  # by all, and by samplers
_late: WeakKeyDictionary[Trainer, UsedCode] = WeakKeyDictionary()  # code that came into use after the start


def shared_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the user's classes, enumerations, modules and functions that the code of a run uses, and the process."""
    every, samplers = used_code(trainer)
    write = partial(set_process_state, names=every.texts)
    yield Owner("process", "process", Linked(process_state(trainer, every.texts), write), *NAMED)
    for kind in every.classes:
        name = f"{kind.__module__}.{kind.__qualname__}"
        is_samplers = kind in samplers.classes
        remedy = SAMPLER_REMEDY if is_samplers else REMEDY
        values = variables_of(kind, frozenset())
        yield Owner(f"class {name}", kind.__qualname__, values, frozenset(), remedy, restores=not is_samplers)
        for member in getattr(kind, "__members__", {}).values() if issubclass(kind, Enum) else ():
            held = {key: part for key, part in vars(member).items() if key not in OF_MEMBERS}
            yield Owner(f"member {name}.{member.name}", str(member), Linked(held, partial(setattr, member)), *NAMED)
    for name in every.modules:
        if (module := sys.modules.get(name)) is not None and is_users(name):
            theirs = samplers.modules.get(name, set())
            used = every.modules[name]
            any_kind = {variable for home, variable in every.assigned if home == name}
            rest = variables_of(module, theirs, used, any_kind)
            yield Owner(f"module {name}", name, rest, *NAMED)
            own = variables_of(module, vars(module).keys() - theirs, used, any_kind) if theirs else {}
            yield Owner(f"module {name} of samplers", name, own, frozenset(), SAMPLER_REMEDY, restores=False)
            caches = {f"{key}.cache": cache.cache_info().misses for key, cache in every.caches.get(name, {}).items()}
            remedy = "Draw it in __init__, or keep it in an attribute"
            yield Owner(f"caches {name}", name, caches, frozenset(), remedy, restores=False)
            functions = every.functions.get(name, {})
            of_samplers = samplers.functions.get(name, {}).keys()
            values = held_by({name: each for name, each in functions.items() if name not in of_samplers})
            yield Owner(f"functions {name}", name, values, *NAMED)
            values = held_by({name: each for name, each in functions.items() if name in of_samplers})
            yield Owner(f"functions {name} of samplers", name, values, frozenset(), SAMPLER_REMEDY, restores=False)
    if (late := _late.get(trainer)) is not None:
        for home, kept in late_values(late, every).items():
            yield Owner(f"late code {home}", home, kept, frozenset(), LATE_REMEDY, restores=False)


def used_code(trainer: Trainer) -> tuple[UsedCode, UsedCode]:
    """Return what the objects of a run use, and its samplers; search only from what is new."""
    roots = [trainer.lightning_module, getattr(trainer, "datamodule", None), *vars(trainer)["callbacks"]]
    samplers: list[Any] = []
    for loader in chain.from_iterable(vars(trainer).get(LOADERS, {}).values()):
        roots += [*datasets_of(loader), collate_of(loader), _worker_init_of(loader)]
        samplers += [type(sampler) for _, sampler in samplers_of(loader)]
    every, of_samplers = _used.get(trainer) or (UsedCode(), UsedCode())
    # what a sampler changes when its pass begins would change twice in a pass that is resumed
    _used[trainer] = _followed(every, [*roots, *samplers]), _followed(of_samplers, samplers)
    return _used[trainer]


def _worker_init_of(loader: Any) -> Any:
    """Return the user's function that starts workers; Lightning gives its own to a loader after the loader is made."""
    function = getattr(loader, "worker_init_fn", None)
    is_lightnings = isinstance(function, partial) and function.func.__module__.startswith("lightning.")
    return None if is_lightnings else function


def _followed(used: UsedCode, roots: list[Any]) -> UsedCode:
    if used.follow(roots):
        return used
    found = UsedCode(*roots)
    if not used.is_searching:
        found.end_search()
    return found


def begin_search(trainer: Trainer) -> None:
    """Search anew for a run that starts; the trainer may have had another one."""
    _used.pop(trainer, None)
    _late.pop(trainer, None)


def end_search(trainer: Trainer) -> None:
    """Release the objects that the search for code found, when a run has begun."""
    for used in _used.get(trainer, ()):
        used.end_search()


def follow_late_code(trainer: Trainer, values: Iterable[Any]) -> bool:
    """Follow code that came into use after the start; return whether there is any that was not followed before.

    What it keeps outside of objects is named when it changes, and at once where it draws from a generator: no resumed
    run finds it before its first batch.
    """
    every, late = used_code(trainer)[0], _late.get(trainer)
    found = every.lacking([*values, *every.arrived()])
    if not (found := late.lacking(found) if late is not None else found):
        return False
    if late is None:
        late = _late[trainer] = UsedCode()
        late.end_search()
    late.add(found, keep=False)
    for home, kept in late_values(late, every).items():
        for name, part in kept.items():
            if isinstance(part, GENERATORS) or (home, name) in late.assigned:
                name_inexact(f"{home}.{name}", f"this attribute {UNSAVED}. {LATE_REMEDY}.")
    return True
