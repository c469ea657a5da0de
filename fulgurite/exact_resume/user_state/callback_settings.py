"""Find the settings of Lightning's callbacks, which a subclass or another callback may change while a run trains."""

from __future__ import annotations

import dis
from collections.abc import Hashable, Iterator
from functools import cache
from types import FunctionType
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

INIT = "__init__"


def callbacks_by_key(trainer: Trainer) -> Iterator[tuple[str, Callback]]:
    """Yield the callbacks with a key that holds for a resumed run, which may have more callbacks."""
    counts: dict[str, int] = {}
    for callback in vars(trainer)["callbacks"]:
        kind = type(callback).__qualname__
        counts[kind] = counts.get(kind, 0) + 1
        yield f"{kind} {counts[kind]}", callback


def callback_settings(trainer: Trainer) -> dict[str, Any]:
    """Return what Lightning's callbacks took as arguments, by key and name, such as `EarlyStopping 1.min_delta`."""
    return {
        f"{key}.{name}": value
        for key, callback in callbacks_by_key(trainer)
        for name in _setting_names(cast("Hashable", type(callback)))
        if isinstance(value := vars(callback).get(name, callback), (bool, int, float, str, type(None)))
    }


def set_callback_settings(trainer: Trainer, values: dict[str, Any]) -> None:
    """Set what `callback_settings` returned."""
    by_key = dict(callbacks_by_key(trainer))
    for key, value in values.items():
        owner, _, name = key.rpartition(".")
        if owner in by_key:
            vars(by_key[owner])[name] = value


def is_callback_setting(trainer: Trainer, name: str) -> bool:
    """Return whether a name is one that `callback_settings` may return."""
    owner, _, attribute = name.rpartition(".")
    callback = dict(callbacks_by_key(trainer)).get(owner)
    return callback is not None and attribute in _setting_names(cast("Hashable", type(callback)))


@cache
def _setting_names(kind: Any) -> frozenset[str]:
    """Return the attributes that Lightning's classes assign in `__init__` only: they change the others themselves."""
    assigned: set[str] = set()
    changed: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("lightning."):
            for function in vars(base).values():
                if isinstance(function, FunctionType):
                    names = {step.argval for step in dis.get_instructions(function) if step.opname == "STORE_ATTR"}
                    (assigned if function.__name__ == INIT else changed).update(names)
    return frozenset(assigned - changed)
