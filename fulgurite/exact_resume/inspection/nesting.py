"""Find containers that hold each other, or one container many times, whose paths have no end."""

from __future__ import annotations

import marshal
from typing import Any

import numpy as np

NESTED = {list, tuple, set, frozenset, dict}
NESTED_OR_ARRAY = NESTED | {np.ndarray, np.recarray}
FIXED = {tuple, frozenset}
MAX_REPEATED = 300_000  # items that are read again, since their container is at several places
REPEATS_OF_CONTAINERS = 300  # for which an item counts that is a container: each level may double them
MAX_LEVELS = 50


def bulk_sign(value: Any) -> int | None:
    """Return a hash of a container of plain values, far faster than item by item; None for any other.

    There is none for a container whose parts repeat too often either: marshal reads a part again at each of its places.
    Nor for one that holds an array of Python objects, of which marshal reads the addresses.
    """
    if _repeats(value):
        return None
    try:
        return hash(marshal.dumps(value, 2))
    except ValueError:
        return None


def holds_tuples(value: Any) -> bool:
    """Return whether a tuple or a frozenset holds others, so that it may stand for many more objects than there are."""
    return not FIXED.isdisjoint(map(type, value))


def _repeats(value: Any) -> bool:
    """Return whether containers repeat in a value, are nested deeper than those of data, or hold arrays of objects."""
    level, seen, num_repeated = [value], set[int](), 0
    for _ in range(MAX_LEVELS):
        inner: list[Any] = []
        for container in level:
            before = len(inner)
            for items in (container, container.values()) if isinstance(container, dict) else (container,):
                if not NESTED_OR_ARRAY.isdisjoint(map(type, items)):
                    inner += [item for item in items if type(item) in NESTED]
                    if any(isinstance(item, np.ndarray) and item.dtype.hasobject for item in items):
                        return True
            if id(container) in seen:
                num_repeated += 1 + len(container) + REPEATS_OF_CONTAINERS * (len(inner) - before)
                if num_repeated > MAX_REPEATED:
                    return True
            seen.add(id(container))
        if not inner:
            return False
        level = inner
    return True
