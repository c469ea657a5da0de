"""Read the bandwidth that a network must carry from a YAML file.

all_reduce:      # a name that --collectives takes
  1MiB: 0.5      # GB/s on the bus for messages from this size up to the next one that is given
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


def read_bytes(text: str, source: str) -> int:
    """Return a number of bytes: `4096`, `64KiB`, `1 MB`.

    Raises:
        UserError: It is none, or below 8.
    """
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise UserError(f"{source} {text}: is no number of bytes; e.g. 65536, 64KiB, 16MiB")
    if (number := int(match[1]) * UNITS[match[2].upper()]) < 8:
        raise UserError(f"{source} {text}: messages have 8 bytes or more")
    return number


def read_threshold(path: Path) -> dict[str, dict[int, float]]:
    """Return the least GB/s by size in bytes by collective; that of `links` stands at size 0.

    Raises:
        UserError: The file cannot be read, or says something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--threshold {path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--threshold {path}: holds no collectives; e.g. all_reduce: {{1MiB: 0.5}}")
    least = {}
    for name, given in content.items():
        source = f"--threshold {path}: {name}"
        if name == "links":
            least["links"] = {0: _rate(given, source)}
        elif name not in BUS_FACTOR:
            raise UserError(f"{source}: is no collective{did_you_mean(str(name), [*BUS_FACTOR, 'links'])}")
        elif not isinstance(given, dict):
            raise UserError(f"{source}={given}: must give GB/s by size, e.g. {{1MiB: 0.5}}")
        else:
            least[name] = {
                read_bytes(str(size), f"{source}:"): _rate(rate, f"{source}: {size}") for size, rate in given.items()
            }
    return least


def _rate(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UserError(f"{source}={value}: is no number of GB/s above 0")
    return float(value)
