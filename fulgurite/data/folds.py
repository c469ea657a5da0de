"""Cross-validation folds for a data module.

Take `fold: int | None = None` and `num_folds: int | None = None` as arguments, and call `split_fold` in `setup` if
`fold` is given. `fulgurite.validate` checks both before torch is imported, also in each job of a sweep.
`python src/train.py -m data.num_folds=5 'data.fold=range(5)'` then reports mean and deviation over the folds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.data.fold_rules import find_fold_problems
from fulgurite.data.splits import shuffle_by_class


def fold_findings(fold: int | None, num_folds: int | None, val_size: int | None = None) -> list[str]:
    """Return one line per invalid cross-validation argument.

    Args:
        fold: The fold that is held out, 0 to `num_folds - 1`. None is no cross-validation.
        num_folds: Number of folds, 2 or more.
        val_size: As the user gave it; must be None with a fold.

    Example:
        >>> fold_findings(fold=0, num_folds=5)
        []
    """
    values = {"fold": fold, "num_folds": num_folds, "val_size": val_size}
    given = {name: value for name, value in values.items() if value is not None}
    wrong = {name: value for name, value in given.items() if type(value) is not int}
    findings = [f"data.{name}={value}: must be a whole number." for name, value in wrong.items()]
    for name, rule in find_fold_problems(fold, num_folds, val_size):
        shown = f"={values[name]}" if name in given else ""
        findings.append(f"data.{name}{shown}: {rule}")
    return findings


def split_fold(
    labels: Tensor, fold: int, num_folds: int | None, seed: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split rows into training rows and the rows of one fold.

    Folds are disjoint and cover all rows. Their sizes differ by one at most, and so do their rows of each class.

    Args:
        labels: Class of each row, whole numbers from 0, [N]; `torch.zeros(N)` for rows without classes.
        fold: The fold that is held out, 0 to `num_folds - 1`.
        num_folds: Number of folds, 2 or more.
        seed: Seed of the shuffle. The global RNGs are not used.
        rows: Rows of `labels` to split, [n] in any order, e.g. all but the test rows. None splits all.

    Returns:
        Training rows and rows of the fold, each sorted, int64.

    Raises:
        UserError: The fold does not exist, or there are fewer rows than folds.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> train_rows, val_rows = split_fold(labels, fold=0, num_folds=4, seed=42)
        >>> labels[val_rows].tolist(), len(train_rows)
        ([0, 1], 6)
    """
    rows = torch.arange(len(labels)) if rows is None else rows.sort().values
    if (findings := fold_findings(fold, num_folds)) or num_folds is None:
        raise ConfigError(findings)
    if num_folds > len(rows):
        raise UserError(f"data.num_folds={num_folds}: there are only {len(rows)} rows to split. Use fewer folds.")
    dealt = rows[shuffle_by_class(labels[rows], seed)]
    is_held_out = torch.arange(len(rows)) % num_folds == fold
    return dealt[~is_held_out].sort().values, dealt[is_held_out].sort().values
