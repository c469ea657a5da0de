"""Read the minimum bandwidths of a network from a YAML file.

all_reduce:      # a name that --collectives accepts
  1MiB: 0.5      # GB/s on the bus for messages from this size up to the next size
  16MiB: 1.2
links: 0.8       # GB/s from any rank to any other, over each interface
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fulgurite.core.errors import UserError, did_you_mean
from fulgurite.doctor.bench.bandwidth import BUS_FACTOR

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(text: str, key: str) -> int:
    """Return a number of bytes: `4096`, `64KiB`, `1 MB`.

    Raises:
        UserError: The text is not a size, or below 8 bytes.
    """
    match = re.fullmatch(r"(\d{1,18})\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise UserError(f"{key}={text}: not a size. Give a number of bytes, e.g. 65536, 64KiB or 16MiB.")
    if (size := int(match[1]) * UNITS[match[2].upper()]) < 8:
        raise UserError(f"{key}={text}: too small. Give 8 bytes or more.")
    return size


def read_thresholds(path: str | Path) -> dict[str, dict[int, float]]:
    """Return the minimum GB/s by collective and size in bytes; `links` has size 0.

    Raises:
        UserError: The file is unreadable or invalid.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--threshold={path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--threshold={path}: no thresholds. Write e.g. all_reduce: {{1MiB: 0.5}}.")
    thresholds = {}
    for name, given in content.items():
        source = f"--threshold={path}: {name}"
        if name == "links":
            thresholds["links"] = {0: _parse_rate(given, source)}
        elif name not in BUS_FACTOR:
            raise UserError(f"{source}: not a collective{did_you_mean(str(name), [*BUS_FACTOR, 'links'])}")
        elif not isinstance(given, dict):
            raise UserError(f"{source}={given}: not a mapping. Give GB/s by size, e.g. {{1MiB: 0.5}}.")
        else:
            thresholds[name] = {
                parse_bytes(str(size), source): _parse_rate(rate, f"{source}: {size}") for size, rate in given.items()
            }
    return thresholds


def _parse_rate(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UserError(f"{source}={value}: not a rate. Give GB/s above 0.")
    return float(value)
