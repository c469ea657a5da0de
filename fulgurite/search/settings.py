"""The settings of a search, `hydra.sweeper` with Optuna, read and held to their rules."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import ConfigError
from fulgurite.core.metric_names import is_list, metrics_of
from fulgurite.validation.findings import Finding

DIRECTIONS = ("minimize", "maximize")
CUSTOM_SPACE_PACKAGES = ("src",)  # packages of which a config may name a function that suggests values


@dataclass(frozen=True)
class SearchSettings:
    """What `hydra.sweeper` says, beside the space.

    Attributes:
        directions: One for each metric.
        n_trials: Trials in all.
        n_jobs: Most trials at once; None is as many as the launcher has room for.
        max_failure_rate: Share of `n_trials` that may fail.
        custom: Suggests more values for a trial, or None.
    """

    directions: tuple[str, ...]
    n_trials: int
    n_jobs: int | None
    max_failure_rate: float
    custom: Callable[[DictConfig, Any], None] | None

    @classmethod
    def read(cls, config: DictConfig) -> SearchSettings:
        """Read the settings of a sweep.

        Args:
            config: The sweep's config with Hydra's part.

        Raises:
            ConfigError: All that is wrong with them, one line each.
        """
        raw = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
        assert isinstance(raw, dict)
        given: dict[str, Any] = {
            name: config.hydra.sweeper.get(name) for name in ("n_trials", "n_jobs", "max_failure_rate")
        }
        directions = read_directions(config.hydra.sweeper)
        findings = [*_number_problems(given), *_direction_problems(directions, config)]
        custom = None
        if named := raw.get("custom_search_space"):
            try:
                custom = _import_function(
                    str(named), (*CUSTOM_SPACE_PACKAGES, *config.extras.get("allowed_targets", ()))
                )
            except ValueError as error:
                findings.append(_problem("custom_search_space", str(error), named))
        if findings:
            raise ConfigError(findings)
        if (config.get("sweep") or {}).get("on_error") == "stop":
            given["max_failure_rate"] = 0.0
        return cls(directions, given["n_trials"], given["n_jobs"], float(given["max_failure_rate"]), custom)


def read_directions(sweeper: Mapping[str, Any] | DictConfig) -> tuple[str, ...]:
    """Return `hydra.sweeper.direction`, one or a list, as a tuple."""
    given: Any = sweeper.get("direction")
    return tuple(str(getattr(one, "name", one)) for one in (given if is_list(given) else [given]))


def find_metric_problems(cfg: DictConfig, settings: SearchSettings, *, prunes: bool) -> Iterator[str]:
    """Yield what is wrong with the metrics that a search is to judge its trials by.

    Args:
        cfg: A trial's config.
        settings: Of the search.
        prunes: Whether trials are to be ended early.
    """
    metrics, count = metrics_of(cfg), len(settings.directions)
    if not metrics:
        yield "optimized_metric: not given; a search judges its trials by it, e.g. optimized_metric=val/acc_best"
    elif len(metrics) != count:
        rule = f"hydra.sweeper.direction names {count}; give a direction for each metric, e.g. [maximize,minimize]"
        yield f"optimized_metric: names {len(metrics)} and {rule}"
    elif prunes and count > 1:
        yield "hydra.sweeper.pruner: Optuna prunes by one metric only; name one, or set it to null"
    elif prunes and not metrics[0].startswith("val/"):
        rule = "is not known while a trial trains; prune by one of the validation (val/...), or set it to null"
        yield f"hydra.sweeper.pruner: optimized_metric={metrics[0]} {rule}"


def _number_problems(given: Mapping[str, Any]) -> Iterator[str]:
    for name in ("n_trials", "n_jobs"):
        value = given[name]
        if name == "n_jobs" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield _problem(name, "must be a whole number from 1 on", value)
    rate = given["max_failure_rate"]
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate <= 1:
        yield _problem("max_failure_rate", "must be a share between 0 and 1 of n_trials", rate)


def _direction_problems(directions: tuple[str, ...], config: DictConfig) -> Iterator[str]:
    if not directions or set(directions) - set(DIRECTIONS):
        rule = "must be minimize or maximize, or a list of them for a list of metrics"
        yield _problem("direction", rule, config.hydra.sweeper.get("direction"))


def _import_function(target: str, allowed: tuple[str, ...]) -> Callable[[DictConfig, Any], None]:
    """Return the function that a dotted path names, judged by where it was defined."""
    module, _, name = target.rpartition(".")
    try:
        named = target.split(".", maxsplit=1)[0] in allowed
        found: Any = getattr(importlib.import_module(module), name) if named else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot be imported ({error}); name a function (cfg, trial)") from error
    if not callable(found) or getattr(found, "__module__", "").split(".")[0] not in allowed:
        raise ValueError(f"must be a function (cfg, trial) of {', '.join(allowed)}; see extras.allowed_targets")
    return found  # type: ignore[no-any-return]


def _problem(name: str, rule: str, value: Any) -> str:
    return Finding(f"hydra.sweeper.{name}", rule, value).line
