"""Compare converted values, and find the paths of what changed in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fulgurite.exact_resume.objects.encoding import KEPT
from fulgurite.exact_resume.objects.walk import CONTENT
from fulgurite.exact_resume.values.kinds import CONTAINERS


def changed_paths(plain: Any, path: str) -> Iterator[str]:
    """Yield the path of each value that `Encoder.encode` converted, in a converted value at a path."""
    if plain == KEPT:
        return
    yield path
    kind: str
    content: Any
    kind, content = plain if isinstance(plain, list) else ("", None)
    if kind == "object":
        for name, part in content[1].items():
            yield from changed_paths(part, f"{path}{name if name == CONTENT else f'.{name}'}")
    elif kind in CONTAINERS:
        items = content[1] if kind in ("defaultdict", "deque") else content
        if not issubclass(CONTAINERS[kind], dict):
            for number, item in enumerate(items):
                yield from changed_paths(item, f"{path}[{number}]")
            return
        for number, (key, item) in enumerate(items):
            if isinstance(key, list):
                yield from changed_paths(key, f"{path}[key {number}]")
            yield from changed_paths(item, f"{path}[item {number}]" if isinstance(key, list) else f"{path}[{key!r}]")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two converted values are equal, also in their types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(part, other[name]) for name, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
