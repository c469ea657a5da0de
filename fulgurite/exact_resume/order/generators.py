"""Find and seed the generators that data sets and samplers keep in their attributes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
LEAVES = (torch.Tensor, np.ndarray, str, bytes, int, float, type, ModuleType, FunctionType)
MAX_DEPTH = 6  # Subset -> ConcatDataset -> list -> data set -> Compose -> list -> transform
MAX_ITEMS = 64  # of a container: a list of transforms is short, a list of files is long


def find_generators(*roots: Any) -> list[Any]:
    """Return the generators in the attributes of objects, nested ones too, without the global ones.

    Args:
        roots: Data sets, samplers or functions; a bound method counts as its object.
    """
    seen: set[int] = set()
    return [found for root in roots for found in _walk(root, MAX_DEPTH, seen)]


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of one of `KINDS`; seed: 0 to 2**32 - 1."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(seed).state
    else:
        generator.seed(seed)


def describe_state(generator: Any) -> str:
    """Return a text that is the same for two generators of the same seed that were not drawn from."""
    if isinstance(generator, torch.Generator):
        return str(generator.initial_seed())
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    return str(generator.getstate() if isinstance(generator, random.Random) else generator.get_state())


def _walk(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if isinstance(value, LEAVES) or value is None or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, KINDS):
        if not _is_global(value):
            yield value
    elif depth:
        for part in _parts(value):
            yield from _walk(part, depth - 1, seen)


def _parts(value: Any) -> list[Any]:
    """Return what a container or an object holds."""
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, Mapping):
        return list(value.values()) if len(value) <= MAX_ITEMS else []
    if isinstance(value, (list, tuple)):
        return list(value) if len(value) <= MAX_ITEMS else []
    return list(getattr(value, "__dict__", {}).values())


def _is_global(generator: Any) -> bool:
    """Return whether a generator is one of those that `seed_all` seeds."""
    shared = (torch.default_generator, np.random.rand.__self__, random.random.__self__)  # type: ignore[attr-defined]
    return any(generator is one for one in shared)
