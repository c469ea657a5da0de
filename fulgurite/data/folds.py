"""Cross-validation: one of several equal parts of the rows is held out instead of `val_size` of them.

For a data module of your own: take `fold: int | None = None` and `num_folds: int | None = None`, and cut in
`setup` as this does, when `fold` is not None.

`validate` knows both names and tells a wrong number before anything is imported, in each job of a sweep.

Example:
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> train_rows, val_rows = split_fold(labels, fold=0, num_folds=4, seed=42)
    >>> labels[val_rows].tolist(), len(train_rows)
    ([0, 1], 6)

Then `python src/train.py -m data.num_folds=5 'data.fold=range(5)'` ends with the mean and deviation over the folds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.data.splits import shuffle_by_class


def fold_findings(fold: int | None, num_folds: int | None, val_size: int | None = None) -> list[str]:
    """Return what is wrong with the arguments of a cross-validation, one line each; nothing where none is asked for.

    Args:
        fold: Which part is held out, 0 to `num_folds - 1`; None holds out none.
        num_folds: Into how many parts the rows are cut, 2 or more.
        val_size: As the user gave it; a fold takes its place.
    """
    if fold is None and num_folds is None:
        return []
    findings = []
    if type(fold) is not int or type(num_folds) is not int or not 0 <= fold < num_folds or num_folds < 2:
        findings.append(
            f"data.fold={fold} with data.num_folds={num_folds}: must be a whole number from 0 to num_folds - 1, "
            "of 2 folds or more; e.g. data.num_folds=5 data.fold=0, or both null"
        )
    if val_size is not None:
        findings.append(f"data.val_size={val_size}: is for a cut without folds; leave it out, or set it to null")
    return findings


def split_fold(
    labels: Tensor, fold: int, num_folds: int | None, seed: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cut rows into those to train on and those of one fold.

    The rows of each class are shuffled and dealt out in turn, one class after the other. Folds are disjoint, together
    they are all rows, and their sizes, like their rows of any one class, differ by one at most.

    Args:
        labels: Class of each row, whole numbers from 0, [N]; `torch.zeros(N)` for rows without classes.
        fold: Which fold is held out, 0 to `num_folds - 1`.
        num_folds: How many there are, 2 or more.
        seed: Another seed is other folds; the global generators are not touched.
        rows: The rows of `labels` that are cut, [n] in any order, e.g. all but those of the test; None cuts all.

    Returns:
        Rows to train on and rows of the fold, each sorted, int64.

    Raises:
        UserError: There is no such fold, or there are fewer rows than folds.
    """
    rows = torch.arange(len(labels)) if rows is None else rows.sort().values
    if (findings := fold_findings(fold, num_folds)) or num_folds is None:
        raise ConfigError(findings)
    if num_folds > len(rows):
        raise UserError(f"data.num_folds={num_folds}: more than the {len(rows)} rows they are cut from; choose fewer")
    dealt = rows[shuffle_by_class(labels[rows], seed)]
    held_out = torch.arange(len(rows)) % num_folds == fold
    return dealt[~held_out].sort().values, dealt[held_out].sort().values
