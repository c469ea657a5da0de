"""The settings of a search: the keys of `hydra.sweeper` except the space."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.metric_names import is_list, optimized_metrics
from fulgurite.config.schema import Extras, read_settings
from fulgurite.core.errors import ConfigError
from fulgurite.validation.findings import Finding

DIRECTIONS = ("minimize", "maximize")
CUSTOM_SPACE_PACKAGES = ("src",)  # packages whose functions `custom_search_space` may name


@dataclass(frozen=True)
class SearchSettings:
    """The validated settings of a search."""

    directions: tuple[str, ...]
    n_trials: int
    n_jobs: int | None  # most trials at once; None for the number of the launcher's slots
    max_failure_rate: float  # fraction of `n_trials` that may fail
    custom_search_space: Callable[[DictConfig, Any], None] | None = None  # suggests further values of a trial
    prunes: bool = False

    @classmethod
    def read(cls, config: DictConfig) -> SearchSettings:
        """Read the settings from a sweep's config with its `hydra` node."""
        sweeper = config.hydra.sweeper
        values: dict[str, Any] = {name: sweeper.get(name) for name in ("n_trials", "n_jobs", "max_failure_rate")}
        given: Any = sweeper.get("direction")
        directions = tuple(str(getattr(one, "name", one)) for one in (given if is_list(given) else [given]))
        findings = list(_find_problems(values))
        if not directions or set(directions) - set(DIRECTIONS):
            rule = "must be minimize or maximize, or a list of them for a list of metrics"
            findings.append(_problem("direction", rule, given))
        raw: Any = OmegaConf.to_container(sweeper, resolve=False)
        custom = None
        if target := raw.get("custom_search_space"):
            try:
                allowed = (*CUSTOM_SPACE_PACKAGES, *read_settings(config, Extras).allowed_targets)
                custom = _import_function(str(target), allowed)
            except ValueError as error:
                findings.append(_problem("custom_search_space", str(error), target))
        if findings:
            raise ConfigError(findings)
        if (config.get("sweep") or {}).get("on_error") == "stop":
            values["max_failure_rate"] = 0.0
        return cls(directions, custom_search_space=custom, prunes=bool(raw.get("pruner")), **values)


def find_metric_problems(cfg: DictConfig, settings: SearchSettings) -> Iterator[str]:
    """Yield what is wrong with the metrics of a trial."""
    metrics, count = optimized_metrics(cfg), len(settings.directions)
    if not metrics:
        yield "optimized_metric: is not set. Set the metric of the search, e.g. optimized_metric=val/acc_best."
    elif len(metrics) != count:
        rule = "Set one direction for each metric, e.g. [maximize,minimize]."
        yield f"optimized_metric: has {len(metrics)} metrics, but hydra.sweeper.direction has {count}. {rule}"
    elif settings.prunes and count > 1:
        yield "hydra.sweeper.pruner: Optuna prunes by one metric only. Set one optimized_metric, or set pruner to null."
    elif settings.prunes and not metrics[0].startswith("val/"):
        rule = "Set a validation metric (val/...), or set pruner to null."
        yield f"hydra.sweeper.pruner: optimized_metric={metrics[0]} is not known during training. {rule}"


def _find_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("n_trials", "n_jobs"):
        value = values[name]
        if name == "n_jobs" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield _problem(name, "must be an integer of at least 1", value)
    rate = values["max_failure_rate"]
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate <= 1:
        yield _problem("max_failure_rate", "must be a fraction of n_trials between 0 and 1", rate)


def _import_function(target: str, allowed: tuple[str, ...]) -> Callable[[DictConfig, Any], None]:
    module, _, name = target.rpartition(".")
    try:
        is_allowed = target.split(".", maxsplit=1)[0] in allowed
        function: Any = getattr(importlib.import_module(module), name) if is_allowed else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot be imported ({error}). Name a function (cfg, trial).") from error
    if not callable(function) or getattr(function, "__module__", "").split(".")[0] not in allowed:
        raise ValueError(f"must be a function (cfg, trial) of {', '.join(allowed)}. See extras.allowed_targets.")
    return function  # type: ignore[no-any-return]


def _problem(name: str, rule: str, value: Any) -> str:
    return Finding(f"hydra.sweeper.{name}", rule, value).line
