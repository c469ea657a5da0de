"""Explain Lightning's errors about a monitored metric that was not logged."""

from __future__ import annotations

import re

from fulgurite.config.metric_names import describe_missing

# Lightning 2.6 on a monitored metric that was not logged: EarlyStopping, ReduceLROnPlateau, ModelCheckpoint
_NOT_LOGGED = re.compile(
    r"(?:conditioned on metric `?([^`\s]+)`? which is not|ModelCheckpoint\(monitor='([^']+)'\)` could not find)"
    r".*?(?:following: (.*)|\[(.*?)\])",
    re.DOTALL,
)


def explain_missing_metric(error: BaseException) -> str | None:
    """Return one line for Lightning's error about a monitored metric that was not logged; None for another error."""
    if (found := _NOT_LOGGED.search(str(error))) is None:
        return None
    name = found[1] or found[2]
    line = describe_missing("monitor", name, re.findall(r"[`'](.+?)[`']", found[3] or found[4] or ""))
    if not name.startswith("train"):
        return line
    # the validation of an epoch, after which early_stopping checks, ends before the epoch of training
    remedy = "set callbacks.early_stopping.check_on_train_epoch_end=true"
    return f"{line}. Metrics of the training epoch are logged after this check: {remedy}"
