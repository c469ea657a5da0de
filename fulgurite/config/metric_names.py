"""Infer a metric's direction from its name, read what a config optimizes, and describe a metric that is not logged."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import did_you_mean

VALIDATION = {"val", "valid", "validation", "dev"}  # first part of the names of validation metrics
_LESS_IS_BETTER = re.compile(r"(loss|error|err|mse|mae|rmse|nll|perplexity|ppl|fid|wer|cer)(_best)?$", re.IGNORECASE)


def is_minimized(metric: str) -> bool:
    """Return whether a metric is a loss or an error by its name: `val/loss`, `test/mae`."""
    return _LESS_IS_BETTER.search(metric) is not None


def optimized_metrics(cfg: DictConfig) -> tuple[str, ...]:
    """Return the names in `optimized_metric`."""
    return as_names(cfg.get("optimized_metric"))


def as_names(given: Any) -> tuple[str, ...]:
    """Return None, a name or a list of names as a tuple."""
    return tuple(map(str, given)) if is_list(given) else (str(given),) if given else ()


def is_list(given: Any) -> bool:
    """Return whether a config value is a list."""
    return isinstance(given, (list, tuple)) or OmegaConf.is_list(given)


def is_of_validation(name: str) -> bool:
    """Return whether the first part of a metric's name is one that validations use, or nearly."""
    part = re.split(r"[^A-Za-z]", name, maxsplit=1)[0].lower()
    return bool(get_close_matches(part, VALIDATION, cutoff=0.75))


def describe_missing(key: str, name: str, logged: Collection[str], who: str = "the run logs") -> str:
    """Return one line about a metric that a config key names and nobody logs.

    Args:
        key: The config key.
        name: Its value.
        logged: Names that are logged.
        who: What logs them, with the verb.
    """
    question, listed = did_you_mean(name, logged), ", ".join(sorted(logged)) or "none"
    return f"{key}={name}: {who} no such metric{question or '. Name one that it logs'} (logged: {listed})"
