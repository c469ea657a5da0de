"""Find the file that a tensor or an array is mapped from, and whether code can change it through the tensor."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

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


def mapped_array(value: Any) -> np.memmap[Any, Any] | None:
    """Return the array of a whole mapping in whose memory an array is."""
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return value if isinstance(value, np.memmap) else None


def place_in_file(value: np.ndarray[Any, Any], mapped: np.memmap[Any, Any]) -> tuple[Any, ...]:
    """Return what differs between two parts of a file, between two files, and after a write to the file."""
    start, address = (each.__array_interface__["data"][0] for each in (mapped, value))
    file = str(mapped.filename) if mapped.filename else start
    return file, mapped.offset + address - start, value.strides, modified(mapped.filename)


def modified(file: Any) -> int:
    """Return the time of the last write to a file in nanoseconds, or 0."""
    try:
        return Path(file).stat().st_mtime_ns if file else 0
    except OSError:
        return 0
