"""Separate the files that the template ships from your own: its rules of style hold for the shipped ones only.

    python scripts/by_owner.py "COMMAND" "COMMAND" FILE...   run one over the shipped files, the other over your own
    python scripts/by_owner.py --write                       write the list of shipped files, at a release only

A file that the list lacks is yours, and so is one that you edited. FILE is a path or a pattern of git, e.g. 'src/*.py'.
An empty COMMAND runs nothing. The list is that of the last release: a file that was added or changed since counts as
yours until the next one. With HOUSE=1 every file that git tracks counts as shipped: for changes to the template.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "scripts/shipped.txt"
KINDS = ("*.py", "*.yaml", "*.yml", "*.ipynb")


def blob_of(content: bytes) -> str:
    """Return the name that git gives to a text file of this content."""
    content = content.replace(b"\r\n", b"\n")
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def tracked(root: Path = ROOT) -> list[str]:
    """Return a line for each file that git tracks: its blob and its path, as in the list."""
    lines = _git("ls-files", "--stage", "--", *KINDS, root=root)
    return [f"{line.split()[1]} {line.partition(chr(9))[2]}" for line in lines]


@cache
def shipped_paths(root: Path = ROOT, house: bool = bool(os.environ.get("HOUSE"))) -> frozenset[str]:
    """Return the paths of the shipped files that are as they were shipped.

    Args:
        root: Folder of the project.
        house: Return all files that git tracks instead.
    """
    lines = tracked(root) if house else (root / LIST.relative_to(ROOT)).read_text(encoding="utf-8").splitlines()
    files = [(path, blob) for blob, _, path in (line.partition(" ") for line in lines) if (root / path).is_file()]
    return frozenset(path for path, blob in files if house or blob_of((root / path).read_bytes()) == blob)


def is_shipped(path: Path) -> bool:
    """Return whether a file of the project is shipped with the template and was not edited."""
    return path.relative_to(ROOT).as_posix() in shipped_paths()


def _git(*arguments: str, root: Path = ROOT) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout.splitlines()


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code: 0 when each command that ran returned 0."""
    if arguments == ["--write"]:
        LIST.write_text("".join(f"{line}\n" for line in tracked()), encoding="utf-8")
        return 0
    if len(arguments) < 3:
        sys.exit(__doc__)
    strict, lenient, *wanted = arguments
    known = _git("ls-files", "--cached", "--others", "--exclude-standard", "--", *wanted)
    files = [path for path in sorted(set(known)) if (ROOT / path).is_file()]
    shipped = [path for path in files if path in shipped_paths()]
    codes = []
    for command, group in ((strict, shipped), (lenient, [path for path in files if path not in shipped_paths()])):
        if command and group:
            codes.append(subprocess.run([*shlex.split(command), *group], cwd=ROOT, check=False).returncode)
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
