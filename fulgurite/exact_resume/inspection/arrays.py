"""Find the file in whose memory an array is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


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
