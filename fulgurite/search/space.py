"""What a search may try: the words of its space read as Optuna's distributions, and a trial's values as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import ConfigError
from fulgurite.search.distributions import from_node, from_override
from fulgurite.validation.overrides import describe_override, parse

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class SearchSpace:
    """The space of a search.

    Attributes:
        distributions: By key of the config.
        texts: How each was written, e.g. `model.optimizer.lr=interval(0.001,0.1)`.
        fixed: Words that every trial has.
    """

    distributions: dict[str, BaseDistribution]
    texts: tuple[str, ...]
    fixed: tuple[str, ...]

    def words(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the words of a trial with these values, in the order of the space."""
        names = [*(name for name in self.distributions if name in params), *params]
        return (*(f"{name}={_to_override_value(params[name])}" for name in dict.fromkeys(names)), *self.fixed)

    def boundary_points(self) -> list[tuple[str, ...]]:
        """Return the words of trials that together have every choice and both ends of every interval.

        Each trial but the first differs from it in one value.
        """
        ends = {name: bounds(distribution) for name, distribution in self.distributions.items()}
        first = {name: values[0] for name, values in ends.items()}
        others = ({**first, name: value} for name, values in ends.items() for value in values[1:])
        return [self.words(params) for params in (first, *others)]

    def grid(self) -> dict[str, list[Any]]:
        """Return all values of each key, for a sampler that tries every combination.

        Raises:
            ConfigError: There is an interval among them.
        """
        found = {name: _grid_values(distribution) for name, distribution in self.distributions.items()}
        endless = [name for name, values in found.items() if values is None]
        if endless:
            rule = "GridSampler takes choice() and range() only; give it values, or take another sampler"
            raise ConfigError([f"{name}: an interval has no end of values; {rule}" for name in endless])
        return {name: values for name, values in found.items() if values is not None}


def read_space(words: Sequence[str], sweeper: DictConfig) -> SearchSpace:
    """Return what the words of a command line and the sweeper's config let a search try.

    Args:
        words: Of the command line; those for the sweep itself (`sweep.`) are for no trial.
        sweeper: `hydra.sweeper`; a word of the command line wins over its `params`.

    Raises:
        ConfigError: Words that cannot be read, or spaces that are none, one line each.
    """
    params = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.get("params") else {}
    assert isinstance(params, dict)
    given = [word for word in words if not word.lstrip("+~").startswith("sweep.")]
    parsed, findings = parse([*(f"{key!s}={value}" for key, value in params.items()), *given])
    distributions = {} if params else _read_search_space(sweeper, findings)
    texts = {name: f"{name}={distribution}" for name, distribution in distributions.items()}
    fixed: dict[str, str] = {}
    for override in parsed:
        name, text = override.get_key_element(), str(override.input_line)
        for known in (distributions, texts, fixed):
            known.pop(name, None)  # the last word for a key counts
        if not override.is_sweep_override():
            fixed[text if override.is_delete() else name] = text
            continue
        try:
            distributions[name], texts[name] = from_override(override), text
        except (ValueError, HydraException) as error:
            findings.append(
                describe_override(
                    text, f"{str(error) or 'is no space'}; write interval(low,high), range(a,b) or choice(a,b)"
                )
            )
    if findings:
        raise ConfigError(findings)
    return SearchSpace(distributions, tuple(texts.values()), tuple(fixed.values()))


def _read_search_space(sweeper: DictConfig, findings: list[str]) -> dict[str, BaseDistribution]:
    if not sweeper.get("search_space"):
        return {}
    space = OmegaConf.to_container(sweeper.search_space, resolve=True)
    assert isinstance(space, dict)
    found = {}
    for name, config in space.items():
        try:
            found[str(name)] = from_node(config)
        except (TypeError, ValueError) as error:  # noqa: PERF203 - all of them are told
            rule = "write it as hydra.sweeper.params, e.g. interval(0.001,0.1)"
            findings.append(f"hydra.sweeper.search_space.{name!s}: is no space ({error}); {rule}")
    return found


def bounds(distribution: BaseDistribution) -> list[Any]:
    """Return every choice, or the ends of an interval or range."""
    of: Any = distribution
    if hasattr(of, "choices"):
        return list(of.choices)
    return [of.low] if of.low == of.high else [of.low, of.high]


def _grid_values(distribution: BaseDistribution) -> list[Any] | None:
    """Return all values of a distribution; None where they have no end."""
    of: Any = distribution
    if hasattr(of, "choices"):
        return list(of.choices)
    step = getattr(of, "q", None) or getattr(of, "step", None)
    if not step:
        return None
    return [of.low + position * step for position in range(int(round((of.high - of.low) / step, 9)) + 1)]


def _to_override_value(value: Any) -> Any:
    return "null" if value is None else value
