"""Find tensors in a file that is mapped for reading only, which no code can change."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

LEAST_BYTES = 2**20  # the hash of a smaller tensor costs no more than the list of mappings
# tensor to its place in memory, and its sign; None where it is not read-only
_found: MutableMapping[torch.Tensor, tuple[Any, Any]] = WeakTensorKeyDictionary()


def read_only_sign(value: torch.Tensor, make: Callable[[], Any]) -> Any:
    """Return the sign of a tensor that `make` makes once; None unless its memory cannot be written to; Linux only."""
    if value.device.type != "cpu" or value.layout is not torch.strided or value.nbytes < LEAST_BYTES:
        return None
    place = value.data_ptr(), value.dtype, value.shape, value.stride()
    if (found := _found.get(value)) is None or found[0] != place:
        found = _found[value] = place, make() if _is_mapped_for_reading(place[0]) else None
    return found[1]


def _is_mapped_for_reading(address: int) -> bool:
    try:
        mappings = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return False
    for bounds, permissions in (line.split()[:2] for line in mappings):
        first, _, end = bounds.partition("-")
        if int(first, 16) <= address < int(end, 16):
            return "w" not in permissions
    return False
