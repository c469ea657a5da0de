"""Sources of synthetic examples, chapters 3, 4, 8 and 10 of the book."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from src.gallery.data.tensors import Split, Splits


def linear(
    generator: torch.Generator,
    weights: Sequence[float] = (2.0, -3.4),
    bias: float = 4.2,
    noise: float = 0.01,
    num_train: int = 1000,
    num_val: int = 1000,
) -> Splits:
    """Return normal inputs `[N, D]` and `x @ weights + bias + noise` `[N, 1]`, sections 3.1 and 4.5.

    Args:
        generator: Source of the random numbers.
        weights: One for each input.
        bias: Of the line.
        noise: Standard deviation.
        num_train: Training examples.
        num_val: Validation examples.
    """
    column = torch.tensor(weights)[:, None]

    def make(size: int) -> Split:
        x = torch.randn(size, len(column), generator=generator)
        return Split((x,), x @ column + bias + noise * torch.randn(size, 1, generator=generator))

    return Splits(make(num_train), make(num_val))


def equal_weights(
    generator: torch.Generator,
    size: int = 200,
    weight: float = 0.01,
    bias: float = 0.05,
    noise: float = 0.01,
    num_train: int = 20,
    num_val: int = 100,
) -> Splits:
    """Return a line with `size` inputs of one weight: with few examples, a problem that overfits (section 4.5)."""
    return linear(generator, [weight] * size, bias, noise, num_train, num_val)


def polynomial(
    generator: torch.Generator,
    coefficients: Sequence[float] = (5.0, 1.2, -3.4, 5.6),
    num_terms: int = 4,
    noise: float = 0.1,
    num_train: int = 100,
    num_val: int = 100,
) -> Splits:
    """Return terms `x^i / i!` `[N, num_terms]` of normal x and a polynomial of them `[N, 1]`, section 4.4.

    Args:
        generator: Source of the random numbers.
        coefficients: Of the true polynomial, the constant first.
        num_terms: Terms that the model sees. Fewer than coefficients underfit, many more overfit.
        noise: Standard deviation.
        num_train: Training examples.
        num_val: Validation examples.
    """
    highest = max(num_terms, len(coefficients))
    powers = torch.arange(highest)
    factorials = torch.tensor([float(math.factorial(power)) for power in range(highest)])

    def make(size: int) -> Split:
        terms = torch.randn(size, 1, generator=generator) ** powers / factorials
        target = terms[:, : len(coefficients)] @ torch.tensor(coefficients)[:, None]
        return Split((terms[:, :num_terms],), target + noise * torch.randn(size, 1, generator=generator))

    return Splits(make(num_train), make(num_val))


def noisy_sine(
    generator: torch.Generator, num_points: int = 1000, num_lags: int = 4, num_train: int = 600, noise: float = 0.2
) -> Splits:
    """Return windows of `num_lags` values of a noisy sine `[N, num_lags]`, and the next value `[N, 1]`, section 8.1.

    Args:
        generator: Source of the random numbers.
        num_points: Length of the series `sin(0.01 t)`.
        num_lags: Values that predict the next one.
        num_train: Windows to train on; all later ones are for validation.
        noise: Standard deviation.
    """
    times = torch.arange(1, num_points + 1)
    series = torch.sin(0.01 * times) + noise * torch.randn(num_points, generator=generator)
    windows = series.unfold(0, num_lags + 1, 1)
    inputs, targets = windows[:, :-1], windows[:, -1:]
    return Splits(Split((inputs[:num_train],), targets[:num_train]), Split((inputs[num_train:],), targets[num_train:]))


def kernel_regression(generator: torch.Generator, num_train: int = 50, num_val: int = 50, noise: float = 0.5) -> Splits:
    """Return noisy points of a curve, each with the other training points as keys and values, section 10.2.

    The curve is `2 sin(x) + x^0.8` for 0 < x < 5.

    Args:
        generator: Source of the random numbers.
        num_train: Noisy training points.
        num_val: Points of the true curve, at equal distances.
        noise: Standard deviation.

    Returns:
        Inputs: queries `[N, 1]`, keys and values `[N, K]`. Targets: `[N, 1]`. A training point is not its own key.
    """

    def curve(x: Tensor) -> Tensor:
        return 2 * torch.sin(x) + x**0.8

    x = (torch.rand(num_train, generator=generator) * 5).sort().values
    y = curve(x) + noise * torch.randn(num_train, generator=generator)
    others = ~torch.eye(num_train, dtype=torch.bool)
    keys, values = (part.expand(num_train, -1)[others].view(num_train, -1) for part in (x, y))
    grid = torch.arange(num_val) * 5 / num_val
    val = Split((grid[:, None], x.expand(num_val, -1), y.expand(num_val, -1)), curve(grid)[:, None])
    return Splits(Split((x[:, None], keys, values), y[:, None]), val)
