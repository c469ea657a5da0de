"""Compare how a run and its resume split the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from zlib import crc32

import numpy as np
from torch.utils.data import ConcatDataset, Subset


def digest_of_splits(loaders: Iterable[Any]) -> int:
    """Return a number that differs where loaders read other examples of a data set that was split.

    Args:
        loaders: Loaders of torch; of others nothing is read.
    """
    digest = 0
    for loader in loaders:
        for subset in _subsets(getattr(loader, "dataset", None)):
            digest = crc32(_bytes_of(subset.indices), digest)
    return digest


def _subsets(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, Subset):
        yield dataset
        yield from _subsets(dataset.dataset)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _subsets(part)


def _bytes_of(indices: Any) -> bytes:
    try:
        return np.asarray(indices, dtype=np.int64).tobytes()
    except (TypeError, ValueError):  # a data set may take any key
        return repr(indices).encode()
