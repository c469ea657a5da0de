"""Put the versions of requirements.txt into .pre-commit-config.yaml, so that hooks and `make check` are the same tools.

python scripts/hook_pins.py          rewrite the pins
python scripts/hook_pins.py --list   print the names of the pinned tools, one a line
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOOKS = ROOT / ".pre-commit-config.yaml"
REQUIREMENTS = ROOT / "requirements.txt"
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[a-z,]+\])?==(?P<version>[A-Za-z0-9.+!]+)")


def pins(text: str) -> dict[str, str]:
    """Return the versions pinned at the starts of lines, by normalised name; the last where there are several."""
    found = (PIN.match(line) for line in text.splitlines())
    return {normalised(pin["name"]): pin["version"] for pin in found if pin}


def normalised(name: str) -> str:
    """Return the name as package indexes compare it: lower case, runs of `-`, `_` and `.` as one `-`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def raised(hooks: str, versions: dict[str, str]) -> str:
    """Return the text of the hooks with every pin at the version of `versions`.

    Raises:
        KeyError: A hook's tool is not among the versions.
    """
    return PIN.sub(lambda pin: f"{pin['name']}{pin['extras'] or ''}=={versions[normalised(pin['name'])]}", hooks)


def main() -> None:
    """Print the tools' names with `--list`, else rewrite the pins."""
    hooks = HOOKS.read_text(encoding="utf-8")
    if "--list" in sys.argv[1:]:
        print("\n".join(sorted({normalised(pin["name"]) for pin in PIN.finditer(hooks)})))
        return
    HOOKS.write_text(raised(hooks, pins(REQUIREMENTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
