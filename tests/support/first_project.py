"""The files and the commands of the README's first project."""

from __future__ import annotations

import re

from tests.support.project import readme


def blocks() -> list[tuple[str, str]]:
    """Return language and text of each block of code in the section; none for another README."""
    if not (text := readme()):
        return []
    section = text.split("## Ten minutes with your own code")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def files() -> dict[str, str]:
    """Return path to content of each file that the section shows."""
    shown: dict[str, str] = {}
    for kind, block in blocks():
        if kind != "bash":
            parts = re.split(r"^# ((?:src|configs)/\S+)\n", block, flags=re.MULTILINE)[1:]
            shown |= dict(zip(parts[::2], parts[1::2], strict=True))
    return shown
