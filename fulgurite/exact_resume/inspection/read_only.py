"""Find tensors in a file that is mapped for reading only, which no code can change through the tensor."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from fulgurite.exact_resume.inspection.arrays import modified

LEAST_BYTES = 2**20  # the hash of a smaller tensor costs no more than the list of mappings
# tensor to its place in memory, its file with the place there, and its sign; None where it is not read-only
_found: MutableMapping[torch.Tensor, tuple[Any, tuple[str, int] | None, Any]] = WeakTensorKeyDictionary()


def read_only_sign(value: torch.Tensor, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """Return a sign of a tensor whose memory cannot be written to, or None; Linux only.

    Args:
        value: The tensor.
        make: Makes the part of the sign that depends on the content, once. The rest is the file, the place in it, and
            the time of its last write.
    """
    if value.device.type != "cpu" or value.layout is not torch.strided or value.nbytes < LEAST_BYTES:
        return None
    place = value.data_ptr(), value.dtype, value.shape, value.stride()
    if (found := _found.get(value)) is None or found[0] != place:
        file = _file_of(place[0])
        found = _found[value] = place, file, () if file is None else make()
    _, file, sign = found
    return None if file is None else (*sign, *file, place[3], modified(file[0]))


def _file_of(address: int) -> tuple[str, int] | None:
    """Return the file that is mapped for reading only at an address, and the place in it."""
    try:
        mappings = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for mapping in mappings:
        bounds, permissions, offset, _, _, *file = mapping.split(maxsplit=5)
        first, _, end = bounds.partition("-")
        if int(first, 16) <= address < int(end, 16):
            return None if "w" in permissions else ("".join(file), int(offset, 16) + address - int(first, 16))
    return None
