"""The settings of a cross-validation held to one another before anything is imported, as a sweep needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fulgurite.config.view import UNKNOWN, ConfigView
from fulgurite.validation.findings import Finding


def check_folds(view: ConfigView) -> Iterator[Finding]:
    """Yield what is wrong with `fold`, `num_folds` and `val_size` of a data module that has the first two.

    Args:
        view: The config.
    """
    data = view.written.get("data")
    if not isinstance(data, dict) or not {"fold", "num_folds"} <= data.keys():
        return
    fold, num_folds, val_size = (
        view.resolved(data.get(name), f"data.{name}") for name in ("fold", "num_folds", "val_size")
    )
    if UNKNOWN in (fold, num_folds) or (fold is None and num_folds is None):
        return
    counted = _is_number(num_folds) and num_folds >= 2
    if num_folds is None:
        yield Finding("data.num_folds", f"data.fold={fold} is one of how many? add e.g. data.num_folds=5")
    elif _is_number(num_folds) and not counted:
        yield Finding("data.num_folds", "must be 2 or more", data["num_folds"])
    if fold is None:
        every = f"-m 'data.fold=range({num_folds})'"
        yield Finding(
            "data.fold", f"not given, so data.num_folds={num_folds} does nothing; add {every}, or data.fold=0"
        )
    elif _is_number(fold) and (fold < 0 or (counted and fold >= num_folds)):
        last = f" = {num_folds - 1}" if counted else ""
        yield Finding("data.fold", f"must be between 0 and data.num_folds - 1{last}", data["fold"])
    if val_size not in (None, UNKNOWN):
        rule = "is for a cut without folds, whose size follows from data.num_folds; leave it out, or set it to null"
        yield Finding("data.val_size", rule, data["val_size"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
