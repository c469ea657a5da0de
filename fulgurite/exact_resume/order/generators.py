"""Find and seed the generators that data sets, samplers and their functions reach."""

from __future__ import annotations

import random
from types import FunctionType
from typing import Any

import numpy as np
import torch

from fulgurite.exact_resume.objects.generator_states import GENERATORS
from fulgurite.exact_resume.order.reachable import names_of, reach

DRAWS = {
    *(name for name in (*random.__all__, *np.random.__all__) if name.islower() and "state" not in name),
    *("rand", "rand_like", "randn_like", "randint_like", "randperm", "bernoulli", "bernoulli_", "normal_", "uniform_"),
    *("random_", "exponential_", "cauchy_", "geometric_", "log_normal_", "dropout", "rsample", "token_hex", "urandom"),
} - {"bytes", "f", "power", "test"}


def find_generators(*roots: Any) -> list[Any]:
    """Return the generators that objects and functions reach, without the global ones.

    Args:
        roots: Data sets, samplers or functions. Their attributes count, and what their code uses: closures, classes,
            variables of the user's modules.
    """
    return [value for value in reach(*roots) if isinstance(value, GENERATORS) and not _is_global(value)]


def draws_random_numbers(function: Any) -> bool:
    """Return whether the code of a function, and what it calls, names a function that draws random numbers."""
    reached = reach(function)
    functions = [value for value in reached if isinstance(value, FunctionType)]
    named = any(not DRAWS.isdisjoint(names_of(value)) for value in functions)
    return named or any(isinstance(value, GENERATORS) for value in reached)


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


def _is_global(generator: Any) -> bool:
    """Return whether a generator is one of those that `seed_all` seeds."""
    shared = (torch.default_generator, np.random.rand.__self__, random.random.__self__)  # type: ignore[attr-defined]
    return any(generator is one for one in shared)
