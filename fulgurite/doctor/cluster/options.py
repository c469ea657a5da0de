"""The options of the doctor."""

from __future__ import annotations

import argparse
from pathlib import Path


class Options(argparse.Namespace):
    """The options of `fulgurite/doctor/cli.py`; `--help` describes them."""

    overrides: list[str]
    backend: str | None
    interface: str | None
    timeout: float
    folder: Path  # without the option: logs/ of the project, else the current folder
    min_free: float
    max_skew: float
    no_drills: bool
    bench: bool
    collectives: list[str]
    max_bytes: int
    factor: int
    warmup: int
    calls: int
    seconds: float
    link_bytes: int
    no_links: bool
    threshold: dict[str, dict[int, float]] | None
    json: Path | None
    markdown: Path | None
    plot: Path | None
