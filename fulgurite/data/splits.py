"""Split the rows of a data set at random, with the same share of each class in every part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def shuffle_by_class(labels: Tensor, seed: int) -> Tensor:
    """Return all rows, class by class, at random within each, [N] int64.

    Args:
        labels: Class of each row, [N].
        seed: Another seed is another order; the global generators are not touched.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].to(torch.int64).argsort(stable=True)]


def stratified_split(labels: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Cut rows at random into disjoint parts that hold the same share of each class.

    Every row gets a place between 0 and 1 among the shuffled rows of its class; parts take the rows in order of place.

    Args:
        labels: Class of each row, [N].
        sizes: Rows of each part but the last, which takes the rest.
        seed: Another seed is another cut; the global generators are not touched.

    Returns:
        `len(sizes) + 1` tensors of row numbers, each sorted, [n] int64.
    """
    by_class = shuffle_by_class(labels, seed)
    counts = torch.bincount(labels.to(torch.int64))
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = (torch.arange(len(labels)) - first + 0.5) / counts.repeat_interleave(counts)
    order = by_class[place.argsort(stable=True)]
    ends = list(accumulate(sizes, initial=0))
    return [order[start:end].sort().values for start, end in zip(ends, [*ends[1:], None], strict=True)]
