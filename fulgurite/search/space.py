"""The search space: overrides to Optuna distributions, trial values to overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import ConfigError
from fulgurite.core.redact import holds_secret
from fulgurite.search.distributions import from_node, from_override
from fulgurite.sweeps.jobs import job_overrides
from fulgurite.validation.overrides import describe_override, parse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class SearchSpace:
    """The space of a search."""

    distributions: dict[str, BaseDistribution]  # by config key
    texts: tuple[str, ...]  # the distributions as written, e.g. `model.optimizer.lr=interval(0.001,0.1)`
    fixed: tuple[str, ...]  # overrides that every trial has

    def to_overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the overrides of a trial with these values, in the order of the space."""
        names = dict.fromkeys([*(name for name in self.distributions if name in params), *params])
        values = {name: "null" if params[name] is None else params[name] for name in names}
        return (*(f"{name}={value}" for name, value in values.items()), *self.fixed)

    def boundary_points(self) -> list[tuple[str, ...]]:
        """Return few trials that together have every choice and every bound.

        Each trial but the first differs from the first in one value.
        """
        values = {name: bounds(distribution) for name, distribution in self.distributions.items()}
        first = {name: some[0] for name, some in values.items()}
        others = ({**first, name: value} for name, some in values.items() for value in some[1:])
        return [self.to_overrides(params) for params in (first, *others)]

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each key, for Optuna's GridSampler."""
        values = {name: _grid_values(distribution) for name, distribution in self.distributions.items()}
        infinite = [name for name, some in values.items() if some is None]
        if infinite:
            rule = "Use choice() or range() with GridSampler, or another sampler."
            raise ConfigError([f"{name}: an interval has infinitely many values. {rule}" for name in infinite])
        return {name: some for name, some in values.items() if some is not None}


def read_space(overrides: Sequence[str], sweeper: DictConfig) -> SearchSpace:
    """Return the search space. The command line wins over `hydra.sweeper.params`."""
    params = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.get("params") else {}
    assert isinstance(params, dict)
    given = [*(f"{key!s}={value}" for key, value in params.items()), *job_overrides(overrides)]
    parsed, findings = parse(given)
    distributions = {} if params else _read_search_space(sweeper, findings)
    texts = {name: f"{name}={distribution}" for name, distribution in distributions.items()}
    fixed: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for override in parsed:
        name, text = override.get_key_element(), str(override.input_line)
        for earlier in (distributions, texts, fixed, wrong):
            earlier.pop(name, None)  # the last override of a key wins
        if not override.is_sweep_override():
            fixed[text if override.is_delete() else name] = text
            continue
        try:
            distributions[name], texts[name] = from_override(override), text
        except (ValueError, HydraException) as error:
            rule = f"{str(error).rstrip('.')}. Write interval(low,high), range(start,stop) or choice(a,b)."
            wrong[name] = describe_override(text, rule)
    findings += wrong.values()
    findings += [
        f"{name}: a secret cannot be searched, because the study holds every value. Set one value."
        for name in distributions
        if holds_secret(name, "any value")
    ]
    if findings:
        raise ConfigError(findings)
    return SearchSpace(distributions, tuple(texts.values()), tuple(fixed.values()))


def _read_search_space(sweeper: DictConfig, findings: list[str]) -> dict[str, BaseDistribution]:
    """Convert `hydra.sweeper.search_space`, and add errors to `findings`."""
    space = OmegaConf.to_container(sweeper.search_space, resolve=True) if sweeper.get("search_space") else {}
    assert isinstance(space, dict)
    distributions = {}
    for name, node in space.items():
        try:
            distributions[str(name)] = from_node(node)
        except (TypeError, ValueError) as error:  # noqa: PERF203 - all errors are reported
            rule = "Use hydra.sweeper.params instead, e.g. interval(0.001,0.1)."
            findings.append(f"hydra.sweeper.search_space.{name!s}: {str(error).rstrip('.')}. {rule}")
    return distributions


def bounds(distribution: BaseDistribution) -> list[Any]:
    """Return every choice, or the bounds of an interval or a range."""
    found: Any = distribution
    if hasattr(found, "choices"):
        return list(found.choices)
    return [found.low] if found.low == found.high else [found.low, found.high]


def _grid_values(distribution: BaseDistribution) -> list[Any] | None:
    """Return all values of a distribution, or None for an interval."""
    found: Any = distribution
    if hasattr(found, "choices"):
        return list(found.choices)
    step = getattr(found, "q", None) or getattr(found, "step", None)
    if not step:
        return None
    return [found.low + index * step for index in range(int(round((found.high - found.low) / step, 9)) + 1)]
