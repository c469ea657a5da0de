"""A module of a project that is imported by its name while a run trains."""

from __future__ import annotations

import numpy as np

RNG = np.random.default_rng(5)
total = 0.0


class Mixer:
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def factor(self) -> float:
        return float(self.rng.uniform(0.5, 1.0))


class SharedMixer(Mixer):
    """Counts in its class."""

    calls = 0

    def factor(self) -> float:
        SharedMixer.calls += 1
        return 1 / SharedMixer.calls


class GlobalMixer(Mixer):
    """Draws from a generator of its module, and adds to a variable of it."""

    def factor(self) -> float:
        global total
        total += float(RNG.uniform(0.5, 1.0))
        return 1 / total
