"""Compute t intervals of means, and compare two groups of runs over the same seeds.

Student's t distribution is computed from its closed form, so that no statistics package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev

LEVEL = 0.95  # confidence level of every interval
POWER = 0.8  # of the test with the suggested number of seeds
MAX_SEEDS = 1000  # a difference that needs more is not worth a test


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds of a group.

    Attributes:
        deviation: Sample standard deviation; None for one value.
        half_width: Half the 95 % t interval of the mean; None for one value.
    """

    n: int
    mean: float
    deviation: float | None
    half_width: float | None


@dataclass(frozen=True)
class Paired:
    """Two groups compared over their shared seeds.

    Attributes:
        n: Number of shared seeds.
        difference: Mean of first minus second; None without a shared seed.
        half_width: Half the 95 % t interval of the difference; None for fewer than two shared seeds.
        more_seeds: How many more seeds a test with a power of 80 % needs, for the difference and spread seen so far; 0
            when the groups differ significantly, None when unknown or above a thousand.
    """

    n: int
    difference: float | None
    half_width: float | None
    more_seeds: int | None


def spread(values: Sequence[float]) -> Spread:
    """Return mean, sample standard deviation and 95 % t interval, mean ± t(0.975, n - 1) s / √n.

    Student (1908), The probable error of a mean, Biometrika 6(1).
    """
    n = len(values)
    if n == 1:
        return Spread(1, values[0], None, None)
    deviation = stdev(values)
    return Spread(n, mean(values), deviation, t_quantile((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n))


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Paired:
    """Compare two groups seed by seed, so that the effect of a seed cancels.

    There is no correction for the selection of the best two of many groups.
    """
    differences = [first[seed] - second[seed] for seed in first if seed in second]
    if len(differences) < 2:
        return Paired(len(differences), differences[0] if differences else None, None, None)
    found = spread(differences)
    assert found.deviation is not None
    assert found.half_width is not None
    if abs(found.mean) > found.half_width:
        more: int | None = 0
    else:
        needed = seeds_needed(found.mean, found.deviation)
        # a sample misses with a chance of 20 % a difference that its size should show
        more = None if needed is None else max(1, needed - found.n)
    return Paired(found.n, found.mean, found.half_width, more)


def seeds_needed(difference: float, deviation: float) -> int | None:
    """Return how many pairs a two-sided paired t test at 5 % needs for a power of 80 %.

    n = ((z(0.975) + z(power)) s / d)² + z(0.975)² / 2, rounded up: the normal formula with the correction for the t
    test of Guenther (1981), Sample size formulas for normal theory t tests, The American Statistician 35(4), 243-244.
    None for a difference of zero, or when more than a thousand pairs are needed.
    """
    if difference == 0:
        return None
    z = NormalDist().inv_cdf
    of_level = z((1 + LEVEL) / 2)
    pairs = ((of_level + z(POWER)) * deviation / difference) ** 2 + of_level**2 / 2
    return None if pairs > MAX_SEEDS else math.ceil(pairs)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, for a probability above 0.5."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return high


def t_cdf(t: float, freedom: int) -> float:
    """Return the distribution function of Student's t, for whole degrees of freedom.

    Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * cosine**2
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + inside) / 2
