"""Find tensors in a file that is mapped for reading only, which no code can change."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

import torch
from torch.utils.weak import WeakTensorKeyDictionary

LEAST_BYTES = 2**20  # the hash of a smaller tensor costs no more than the list of mappings
# tensor to its address, and whether it is read-only there
_found: MutableMapping[torch.Tensor, tuple[int, bool]] = WeakTensorKeyDictionary()


def is_read_only(value: torch.Tensor) -> bool:
    """Return whether the memory of a tensor cannot be written to, as that of `np.memmap(mode="r")`; Linux only."""
    if value.device.type != "cpu" or value.layout is not torch.strided or value.nbytes < LEAST_BYTES:
        return False
    address = value.data_ptr()
    if (found := _found.get(value)) is None or found[0] != address:
        found = _found[value] = address, _is_mapped_for_reading(address)
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
