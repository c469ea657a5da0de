"""Whether the code and the configs are still those that a sweep began with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fulgurite.core.files import sha256_of
from fulgurite.core.project import project_root

PATTERNS = ("src/**/*.py", "configs/**/*.yaml")


class CodeState:
    """The files of `src/` and `configs/` by content.

    Args:
        root: The project's root; `project_root()` when not given.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or project_root()
        self._stamps: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, str] = {}
        self.files = self._read()

    @property
    def digest(self) -> str:
        """One hash of all of them."""
        lines = (f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def changes(self) -> list[str]:
        """Return the files that were changed, added or removed since this was last asked."""
        before, self.files = self.files, self._read()
        return sorted(name for name in before.keys() | self.files.keys() if before.get(name) != self.files.get(name))

    def _read(self) -> dict[str, str]:
        """Return the files with their hashes; one whose size and times are as they were is not read again."""
        before, stamps, self._stamps = self.files, self._stamps, {}
        files = {}
        for path in (path for pattern in PATTERNS for path in self.root.glob(pattern) if path.is_file()):
            name, now = path.relative_to(self.root).as_posix(), path.stat()
            self._stamps[name] = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
            files[name] = before[name] if stamps.get(name) == self._stamps[name] else sha256_of(path)
        return files
