"""Stratified random splits: each part has the same fraction of each class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def shuffle_by_class(labels: Tensor, seed: int) -> Tensor:
    """Return all rows sorted by class and shuffled within each class, [N] int64.

    Args:
        labels: Class of each row, [N].
        seed: Seed of the shuffle. The global RNGs are not used.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].to(torch.int64).argsort(stable=True)]


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
    by_class = shuffle_by_class(labels, seed)
    counts = torch.bincount(labels.to(torch.int64))
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    # relative position of each row within its class, 0 to 1: parts take the rows in this order
    position = (torch.arange(len(labels)) - first + 0.5) / counts.repeat_interleave(counts)
    order = by_class[position.argsort(stable=True)]
    bounds = list(accumulate(sizes, initial=0))
    return [order[start:stop].sort().values for start, stop in zip(bounds, [*bounds[1:], None], strict=True)]
