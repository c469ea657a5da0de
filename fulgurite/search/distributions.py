"""Optuna distributions from override sweeps and from `search_space` nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Glob, Override, Transformer

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NODE_KEYS = {"type", "choices", "low", "high", "log", "step"}


def from_override(override: Override) -> BaseDistribution:
    """Convert an override sweep.

    `choice()` and a shuffled range are categorical. `range()` ends at its last value and `interval()` at its bound;
    both are integers where all their numbers are. The tag `log` makes an interval logarithmic. A `ValueError` states
    why the sweep is no search space.
    """
    sweep: Any = override.value()
    if isinstance(sweep, Glob):
        raise ValueError("glob() is not a search space")
    if override.is_interval_sweep():
        return _numeric(sweep.start, sweep.end, log="log" in sweep.tags)
    # the order means nothing to a sampler, but a resumed study accepts the same order only
    is_shuffled, sweep.shuffle = sweep.shuffle, False
    if override.is_range_sweep() and not sweep.step:
        raise ValueError("the step of a range must not be 0")
    values: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
    if not values:
        raise ValueError("the sweep has no value")
    # Hydra 1.4 keeps casts as transformers of the values, 1.3 applies them to the bounds
    if override.is_choice_sweep() or is_shuffled or getattr(sweep, "transformers", None):
        return _categorical(values)
    return _numeric(min(values[0], values[-1]), max(values[0], values[-1]), step=abs(sweep.step))


def from_node(node: Any) -> BaseDistribution:
    """Convert a `search_space` node, e.g. `{type: float, low: 0.1, high: 1}`."""
    if not isinstance(node, Mapping) or node.keys() - NODE_KEYS:
        raise ValueError(f"its keys must be among {', '.join(sorted(NODE_KEYS))}")
    kind, low, high, step = str(node.get("type")), node.get("low"), node.get("high"), node.get("step")
    if kind == "categorical" and node.get("choices") is not None:
        return _categorical(node["choices"])
    if kind not in {"int", "float"} or low is None or high is None:
        raise ValueError("it must be of type categorical with choices, or of type int or float with low and high")
    if kind == "int":
        return _numeric(int(low), int(high), log=bool(node.get("log")), step=None if step is None else int(step))
    return _numeric(float(low), float(high), log=bool(node.get("log")), step=step)


def _categorical(values: list[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(values)


def _numeric(low: Any, high: Any, *, log: bool = False, step: Any = None) -> BaseDistribution:
    """Make an integer distribution if all numbers are integers, else a float one."""
    from optuna import distributions

    optuna: Any = distributions
    is_int = all(isinstance(number, int) for number in (low, high, 0 if step is None else step))
    if hasattr(optuna, "FloatDistribution"):  # Optuna 3 or later
        steps = {} if step is None or log else {"step": step}
        return (optuna.IntDistribution if is_int else optuna.FloatDistribution)(low, high, log=log, **steps)  # type: ignore[no-any-return]
    if log:
        return (optuna.IntLogUniformDistribution if is_int else optuna.LogUniformDistribution)(low, high)  # type: ignore[no-any-return]
    if is_int:
        return optuna.IntUniformDistribution(low, high, step=step or 1)  # type: ignore[no-any-return]
    if step is None:
        return optuna.UniformDistribution(low, high)  # type: ignore[no-any-return]
    return optuna.DiscreteUniformDistribution(low, high, step)  # type: ignore[no-any-return]
