"""Check the cross-validation settings of a config."""

from __future__ import annotations

from collections.abc import Iterator

from fulgurite.config.view import UNKNOWN, ConfigView
from fulgurite.data.fold_rules import find_fold_problems
from fulgurite.validation.findings import Finding
from fulgurite.validation.parallelism import source_mentions


def check_folds(view: ConfigView) -> Iterator[Finding]:
    """Yield wrong values of `fold`, `num_folds` and `val_size` for a data module that calls `fold_findings`."""
    data = view.written.get("data")
    if not isinstance(data, dict) or not {"fold", "num_folds"} <= data.keys():
        return
    if not source_mentions(str(data.get("_target_")), "fold_findings"):  # another class may count folds otherwise
        return
    names = ("fold", "num_folds", "val_size")
    fold, num_folds, val_size = (view.resolve(data.get(name), f"data.{name}") for name in names)
    if UNKNOWN in (fold, num_folds):
        return
    for name, rule in find_fold_problems(fold, num_folds, None if val_size is UNKNOWN else val_size):
        yield Finding(f"data.{name}", rule, ... if data.get(name) is None else data[name])
