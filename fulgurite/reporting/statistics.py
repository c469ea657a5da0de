"""What seeds tell: the interval of a mean, and whether two groups of runs over the same seeds are apart.

Student's t distribution is computed here from its closed form, so that no statistics package is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev

LEVEL = 0.95  # of every interval
POWER = 0.8  # chance to find a difference that is there, for the number of seeds asked for
MOST_SEEDS = 1000  # a difference that needs more is none for anybody


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds of a group.

    Attributes:
        n: Number of values.
        mean: Their mean.
        deviation: Sample standard deviation; None for one value.
        half_width: Half the 95 % t interval of the mean; None for one value.
    """

    n: int
    mean: float
    deviation: float | None
    half_width: float | None


@dataclass(frozen=True)
class Paired:
    """Two groups over the seeds that they share.

    Attributes:
        n: Number of shared seeds.
        difference: Mean of first minus second; None where no seed is shared.
        half_width: Half the 95 % t interval of the difference; None for fewer than two shared seeds.
        more_seeds: How many more seeds would tell them apart with a chance of 80 %, were the difference and its spread
            as seen; 0 when they are apart, None when it cannot be said or is beyond a thousand.
    """

    n: int
    difference: float | None
    half_width: float | None
    more_seeds: int | None

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.difference is not None and self.half_width is not None and abs(self.difference) > self.half_width


def spread(values: Sequence[float]) -> Spread:
    """Return mean, sample standard deviation and 95 % t interval, mean ± t(0.975, n - 1) s / √n.

    Args:
        values: At least one number.

    References:
        Student (1908), The probable error of a mean, Biometrika 6(1).
    """
    n = len(values)
    if n == 1:
        return Spread(1, values[0], None, None)
    deviation = stdev(values)
    return Spread(n, mean(values), deviation, t_quantile((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n))


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Paired:
    """Compare two groups seed by seed: what a seed does to both of them does not blur their difference.

    The two are not corrected for having been chosen as the best of many.

    Args:
        first: Seed to metric.
        second: The same of the other group.
    """
    differences = [first[seed] - second[seed] for seed in first if seed in second]
    if len(differences) < 2:
        return Paired(len(differences), differences[0] if differences else None, None, None)
    told = spread(differences)
    assert told.deviation is not None
    assert told.half_width is not None
    apart = abs(told.mean) > told.half_width
    if apart:
        more: int | None = 0
    else:
        needed = seeds_needed(told.mean, told.deviation)
        # a sample may miss a difference that its own size should show with a chance of 80 %
        more = None if needed is None else max(1, needed - told.n)
    return Paired(told.n, told.mean, told.half_width, more)


def seeds_needed(difference: float, deviation: float) -> int | None:
    """Return how many pairs a two-sided paired t test at 5 % needs to find a difference with a chance of 80 %.

    n = ((z(0.975) + z(power)) s / d)² + z(0.975)² / 2, rounded up: the normal formula with the correction for the t
    test of Guenther (1981), Sample size formulas for normal theory t tests, The American Statistician 35(4), 243-244.

    Args:
        difference: Mean difference to be found.
        deviation: Sample standard deviation of the differences.

    Returns:
        None when there is no difference to find, or more than a thousand pairs would be needed.
    """
    if difference == 0:
        return None
    z = NormalDist().inv_cdf
    of_level = z((1 + LEVEL) / 2)
    pairs = ((of_level + z(POWER)) * deviation / difference) ** 2 + of_level**2 / 2
    return None if pairs > MOST_SEEDS else math.ceil(pairs)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution.

    Args:
        probability: Above 0.5 and below 1.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return high


def t_cdf(t: float, freedom: int) -> float:
    """Return the distribution function of Student's t, for whole degrees of freedom.

    References:
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
