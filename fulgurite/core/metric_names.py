"""Infer a metric's direction from its name, and read the metrics that a config optimizes."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

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
