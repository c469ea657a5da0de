"""The root of the project, and the files in it that the template ships."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from scripts.by_owner import is_shipped

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def shipped(files: Iterable[Path]) -> list[Path]:
    """Return those of some files that are as the template ships them, sorted: its own rules hold for these only."""
    return sorted(path for path in files if is_shipped(path))


def shipped_options(group: str) -> list[str]:
    """Return the names of the files of a config group that are as the template ships them."""
    return [path.stem for path in shipped((CONFIGS / group).glob("*.yaml"))]


def readme() -> str:
    """Return the text of the template's README; empty where a project has one of its own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text if text.startswith("# Fulgurite\n") else ""


def check_options(name: str) -> str:
    """Return the options of a tool for your files, as `scripts/check.sh` sets them."""
    return "".join(re.findall(rf'^{name}\+?="(.*)"$', (ROOT / "scripts/check.sh").read_text(), re.MULTILINE))
