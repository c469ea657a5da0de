"""What a user's sampler yielded in a pass, to notice where a resumed run gets other batches."""

from __future__ import annotations

from collections import deque
from types import GeneratorType
from typing import Any
from zlib import crc32

import numpy as np
import torch

from fulgurite.core.exactness import name_inexact

PLAIN = (bool, int, float, str)
CONTAINERS = (list, dict, set, deque, torch.Tensor, np.ndarray)


class Drawn:
    """A running checksum of the batches of indices that a sampler yielded.

    A sampler that reads what training changes, such as losses, yields others when the batches that the run trained on
    are drawn again. That makes the rest of the pass another one where the sampler remembers what it yielded.

    Args:
        name: The class of the sampler, for the message.
        keeps_generator: Whether the sampler draws from a generator of its own, whose position depends on what it drew.
        expected: The number of batches and the checksum of the interrupted run; None: nothing to compare with.
    """

    def __init__(self, name: str, expected: list[int] | None = None, *, keeps_generator: bool = False) -> None:
        self._name, self._expected, self._keeps_generator = name, expected, keeps_generator
        self._count = 0
        self._sum: int | None = 0  # None: a batch holds what has no plain text

    def add(self, indices: Any, batches: Any = None) -> None:
        """Add a batch of an iterator; name the sampler where those until now are not those of the interrupted run."""
        text = None if self._sum is None else _text_of(indices)
        self._count += 1
        self._sum = None if text is None else crc32(text.encode(), self._sum or 0)
        if self._expected is None or self._expected[0] != self._count or self._sum is None:
            return
        if self._expected[1] != self._sum and (self._keeps_generator or _remembers(batches, indices)):
            name_inexact(
                self._name,
                "its batches depend on what the training changed amid the epoch, so that the resumed run gets other "
                "examples in the rest of this epoch. Choose the batches of an epoch when it begins, or save at the end "
                "of epochs only.",
            )

    def state(self) -> list[int] | None:
        """Return the number of batches and the checksum; None where there is none."""
        return None if self._sum is None else [self._count, self._sum]


def _remembers(batches: Any, last: Any) -> bool:
    """Return whether an iterator may hold what it yielded: a generator whose variables have a container does.

    What it yielded last does not count.
    """
    if not isinstance(batches, GeneratorType):
        return True
    values = {} if batches.gi_frame is None else dict(batches.gi_frame.f_locals)
    held = [last, *getattr(values.pop("self", None), "__dict__", {}).values()]  # attributes are saved
    inner = [value for value in (batches.gi_yieldfrom, *values.values()) if isinstance(value, GeneratorType)]
    own = [value for value in values.values() if not any(value is each for each in held)]
    return any(isinstance(value, CONTAINERS) for value in own) or any(_remembers(value, last) for value in inner)


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
