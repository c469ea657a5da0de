"""The rules of `fold`, `num_folds` and `val_size`, for the config check and for the data modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def find_fold_problems(fold: Any, num_folds: Any, val_size: Any = None) -> Iterator[tuple[str, str]]:
    """Yield each wrong argument of a cross-validation with the rule that it breaks."""
    if fold is None and num_folds is None:
        return
    is_valid = type(num_folds) is int and num_folds >= 2  # a bool is an instance of int
    if num_folds is None:
        yield "num_folds", f"missing, and data.fold={fold} needs it. Add e.g. data.num_folds=5."
    elif type(num_folds) is int and not is_valid:
        yield "num_folds", "must be 2 or more. Set e.g. data.num_folds=5."
    if fold is None:
        every = f"-m 'data.fold=range({num_folds})'"
        yield "fold", f"missing, so data.num_folds={num_folds} has no effect. Add {every}, or data.fold=0."
    elif type(fold) is int and (fold < 0 or (is_valid and fold >= num_folds)):
        last = f" = {num_folds - 1}" if is_valid else ""
        yield "fold", f"must be between 0 and data.num_folds - 1{last}. Choose another fold."
    if val_size is not None:
        yield "val_size", "has no effect with folds, whose size follows from data.num_folds. Set it to null."
