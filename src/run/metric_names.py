"""What the name of a metric says of it."""

from __future__ import annotations

import re

_LESS_IS_BETTER = re.compile(r"(loss|error|err|mse|mae|rmse|nll|perplexity|ppl|fid|wer|cer)(_best)?$", re.IGNORECASE)


def less_is_better(metric: str) -> bool:
    """Tell whether a metric is one that is called what losses and errors are called: `val/loss`, `test/mae`."""
    return _LESS_IS_BETTER.search(metric) is not None
