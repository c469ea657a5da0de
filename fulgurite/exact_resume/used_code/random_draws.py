"""Find code that draws random numbers."""

from __future__ import annotations

import random
from types import FunctionType
from typing import Any

import numpy as np

from fulgurite.exact_resume.used_code.reachable import names_of, reach
from fulgurite.exact_resume.values.generator_states import GENERATORS

DRAWS = {
    *(name for name in (*random.__all__, *np.random.__all__) if name.islower() and "state" not in name),
    *("rand", "rand_like", "randn_like", "randint_like", "randperm", "bernoulli", "bernoulli_", "normal_", "uniform_"),
    *("random_", "exponential_", "cauchy_", "geometric_", "log_normal_", "dropout", "rsample", "token_hex", "urandom"),
} - {"bytes", "f", "power", "test"}


def draws_random_numbers(function: Any) -> bool:
    """Return whether the code of a function, and what it calls, names a function that draws random numbers."""
    reached = reach(function)
    functions = [value for value in reached if isinstance(value, FunctionType)]
    named = any(not DRAWS.isdisjoint(names_of(value)) for value in functions)
    return named or any(isinstance(value, GENERATORS) for value in reached)
