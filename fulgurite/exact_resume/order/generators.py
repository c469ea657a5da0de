"""Find and seed the generators that data sets, samplers and their functions reach."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fulgurite.exact_resume.order.rng import GLOBAL
from fulgurite.exact_resume.used_code.reachable import reach
from fulgurite.exact_resume.values.generator_states import GENERATORS
from fulgurite.exact_resume.values.leaves import leaf_from_plain, leaf_to_plain


def find_generators(*roots: Any) -> list[Any]:
    """Return the generators that objects and functions reach, without the global ones.

    Args:
        roots: Data sets, samplers or functions. Their attributes count, and what their code uses: closures, classes,
            variables of the user's modules.
    """
    shared = set(map(id, GLOBAL.values()))
    return [value for value in reach(*roots) if isinstance(value, GENERATORS) and id(value) not in shared]


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of one of `GENERATORS`; seed: 0 to 2**32 - 1."""
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


def draw_aside(generators: Sequence[Any], batches: Iterator[Any]) -> Iterator[Any]:
    """Yield what an iterator yields that draws from generators, and give them their states back each time."""
    inner = [leaf_to_plain(each) for each in generators]
    while True:
        outer = _swap(generators, inner)
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            inner = _swap(generators, outer)
        yield batch


def _swap(generators: Sequence[Any], states: list[Any]) -> list[Any]:
    """Set states, and return those from before."""
    before = [leaf_to_plain(each) for each in generators]
    for generator, state in zip(generators, states, strict=True):
        leaf_from_plain(state, generator, torch.device("cpu"))
    return before
