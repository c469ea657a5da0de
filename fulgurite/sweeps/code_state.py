"""The state of the code and the configs during a sweep."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulgurite.core.files import sha256_of
from fulgurite.core.project import project_root
from fulgurite.core.rank_logging import rank
from fulgurite.runs.sweep_ledger import append_event

PATTERNS = ("src/**/*.py", "fulgurite/**/*.py", "configs/**/*.yaml", "fulgurite/conf/**/*.yaml")
MAX_SHOWN = 5  # changed files in a warning


class CodeState:
    """Hashes of the code and config files below a root, by default `project_root()`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or project_root()
        self._stats: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, str] = {}
        self.files = self._hash_files()

    @property
    def digest(self) -> str:
        """One hash of all files."""
        lines = (f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def changes(self) -> list[str]:
        """Return the files that were changed, added or removed since the last call."""
        before, self.files = self.files, self._hash_files()
        return sorted(name for name in before.keys() | self.files.keys() if before.get(name) != self.files.get(name))

    def warn_if_changed_since(self, plan: Mapping[str, Any] | None) -> None:
        """Warn if the files differ from those of a sweep's first start."""
        if plan is not None and plan["code"] != self.digest:
            print_status("warning: sweep: code or config files have changed since the sweep started")

    def record_changes(self, folder: Path, next_job: int, consequence: str = "") -> None:
        """Warn about changed files, and record the first job that they affect."""
        if rank() == 0 and (files := self.changes()):
            append_event(folder, "changed", before=next_job, files=files)
            shown = ", ".join(files[:MAX_SHOWN]) + (", ..." if len(files) > MAX_SHOWN else "")
            print_status(f"warning: sweep: changed during the sweep: {shown}{consequence}")

    def _hash_files(self) -> dict[str, str]:
        """Hash the files whose size, times or inode differ from the last call."""
        hashes, stats, self._stats = self.files, self._stats, {}
        files = {}
        for path in (path for pattern in PATTERNS for path in self.root.glob(pattern) if path.is_file()):
            name, stat = path.relative_to(self.root).as_posix(), path.stat()
            self._stats[name] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            files[name] = hashes[name] if stats.get(name) == self._stats[name] else sha256_of(path)
        return files


def print_status(line: str) -> None:
    """Print a line about a sweep to standard error, on rank 0 only."""
    if rank() == 0:
        sys.stderr.write(f"{line}\n")
