"""What a user's sampler yielded in a pass, to notice where a resumed run gets other batches."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import torch

from fulgurite.core.exactness import name_inexact

PLAIN = (bool, int, float, str)


class Drawn:
    """A running checksum of the batches of indices that a sampler yielded.

    A sampler that reads what training changes, such as losses, yields others when the batches that the run trained on
    are drawn again.

    Args:
        name: The class of the sampler, for the message.
        expected: The number of batches and the checksum of the interrupted run; None: nothing to compare with.
    """

    def __init__(self, name: str, expected: list[int] | None = None) -> None:
        self._name, self._expected = name, expected
        self._count = 0
        self._sum: int | None = 0  # None: a batch holds what has no plain text

    def add(self, indices: Any) -> None:
        """Add a batch; name the sampler where the batches until now are not those of the interrupted run."""
        text = None if self._sum is None else _text_of(indices)
        self._count += 1
        self._sum = None if text is None else crc32(text.encode(), self._sum or 0)
        if self._expected is None or self._expected[0] != self._count or self._sum is None:
            return
        if self._expected[1] != self._sum:
            name_inexact(
                self._name,
                "its batches depend on what the training changed amid the epoch, so that the resumed run gets other "
                "examples in the rest of this epoch. Choose the batches of an epoch when it begins, or save at the end "
                "of epochs only.",
            )

    def state(self) -> list[int] | None:
        """Return the number of batches and the checksum; None where there is none."""
        return None if self._sum is None else [self._count, self._sum]


def _text_of(indices: Any) -> str | None:
    """Return a text of a batch that differs for other indices; None for objects that are no numbers or texts."""
    if isinstance(indices, (torch.Tensor, np.ndarray, np.generic)):
        indices = indices.tolist()
    if type(indices) in PLAIN:
        return repr(indices)
    if not isinstance(indices, (list, tuple)):
        return None
    if all(type(index) is int for index in indices):  # far faster
        return repr([*indices])
    texts = [_text_of(index) for index in indices]
    return None if None in texts else repr(texts)
