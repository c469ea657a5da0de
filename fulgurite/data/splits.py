"""Split the rows of a data module: stratified parts, and the folds of a cross-validation.

Cross-validation: take `fold: int | None = None` and `num_folds: int | None = None` as arguments, which
`fulgurite.validate` checks before torch is imported, and call `split_fold` in `setup` if `fold` is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.data.fold_rules import find_fold_problems


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
    findings = [f"data.{name}={v}: must be a whole number." for name, v in given.items() if type(v) is not int]
    for name, rule in find_fold_problems(fold, num_folds, val_size):
        findings.append(f"data.{name}={given[name]}: {rule}" if name in given else f"data.{name}: {rule}")
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
    dealt = rows[_shuffle_by_class(labels[rows], seed)]
    is_held_out = torch.arange(len(rows)) % num_folds == fold
    return dealt[~is_held_out].sort().values, dealt[is_held_out].sort().values


def stratified_split(labels: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Split rows at random into disjoint parts with the same fraction of each class.

    Args:
        labels: Class of each row, [N].
        sizes: Rows of each part but the last, which takes the rest.
        seed: Seed of the shuffle. The global RNGs are not used.

    Returns:
        `len(sizes) + 1` tensors of row numbers, each sorted, [n] int64.

    Example:
        >>> val_rows, train_rows = stratified_split(torch.tensor([0, 0, 1, 1]), [2], seed=42)
        >>> len(val_rows), len(train_rows)
        (2, 2)
    """
    counts = torch.bincount(labels.to(torch.int64))
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    # relative position of each row within its class, 0 to 1: parts take the rows in this order
    position = (torch.arange(len(labels)) - first + 0.5) / counts.repeat_interleave(counts)
    order = _shuffle_by_class(labels, seed)[position.argsort(stable=True)]
    return [part.sort().values for part in order.tensor_split(tuple(accumulate(sizes)))]


def _shuffle_by_class(labels: Tensor, seed: int) -> Tensor:
    """Return all rows sorted by class and shuffled within each class, [N] int64; the global RNGs are not used."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].to(torch.int64).argsort(stable=True)]
