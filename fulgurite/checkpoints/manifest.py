"""Verify checkpoints against their manifests and find the newest intact one.

The manifest `x.ckpt.json` of `x.ckpt` holds sha256 and size of the file, step and epoch, the rows of metrics.csv and
the loggers' step at the save, the run's config_hash and versions. The previous generation of `last.ckpt` is
`last-previous.ckpt`. io.py writes them.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from fulgurite.core.errors import UserError
from fulgurite.core.files import read_regular, sha256_of

LAST = "last.ckpt"  # the file with a previous generation
_digests: dict[tuple[Path, int, int, int], str] = {}  # by path, size, mtime and inode


def manifest_of(path: Path) -> Path:
    """Return the path of a checkpoint's manifest."""
    return path.with_name(f"{path.name}.json")


def previous_of(path: Path) -> Path:
    """Return the path of the previous generation of a checkpoint."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def verify(path: Path) -> str:
    """Return how a checkpoint differs from its manifest; an empty string if it is intact or has none."""
    manifest = manifest_of(path)
    if not manifest.is_file() or not path.is_file():
        return ""
    try:
        content = json.loads(read_regular(manifest))
        sha256, size = str(content["sha256"]), int(content["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"its manifest {manifest.name} is unreadable"
    if (found := path.stat().st_size) != size:
        return f"it has {found} bytes, not {size} as in {manifest.name}"
    if (digest := _sha256_cached(path)) != sha256:
        return f"its sha256 is {digest[:12]}..., not {sha256[:12]}... as in {manifest.name}"
    return ""


def _sha256_cached(path: Path) -> str:
    """Return a file's sha256, computed once: a start verifies its checkpoint twice, which takes seconds."""
    found = path.stat()
    key = (path, found.st_size, found.st_mtime_ns, found.st_ino)
    if key not in _digests:
        _digests[key] = sha256_of(path)
    return _digests[key]


def require_intact(path: Path) -> None:
    """Reject a checkpoint that differs from its manifest."""
    if damage := verify(path):
        raise UserError(
            f"{path}: is damaged or was changed after the save ({damage}); {suggest_intact(path)}, "
            f"or remove {manifest_of(path).name} to load it without verification."
        )


def suggest_intact(path: Path) -> str:
    """Return a remedy that names the newest intact checkpoint of the same folder."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and manifest_of(other).is_file()]
    for other in sorted(others, key=manifest_step, reverse=True):
        if not verify(other):
            return f"use {other}, which is intact (step {manifest_step(other)})"
    return "use another one: no intact checkpoint is in its folder"


def newest_intact(folder: Path) -> tuple[Path | None, list[str]]:
    """Find the newest intact one of `last.ckpt` and its previous generation.

    A kill right after the rename leaves a file without a manifest; it is verified as a zip archive. The folder need not
    exist.

    Returns:
        The file or None, and a line `<file>: <damage>` for each damaged one.
    """
    last = folder / LAST
    damaged: list[str] = []
    generations = [last, previous_of(last)]
    # the order differs only where a user has moved the files
    generations.sort(key=lambda path: manifest_step(path, unknown=math.inf if path == last else 0), reverse=True)
    for path in filter(Path.is_file, generations):
        damage = verify(path) if manifest_of(path).is_file() else verify_archive(path)
        if not damage:
            return path, damaged
        damaged.append(f"{path}: {damage}")
    return None, damaged


def verify_archive(path: Path) -> str:
    """Return the damage of a file that a manifest does not describe: torch writes a zip archive with checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"its member {member} is damaged" if (member := archive.testzip()) else ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return f"it is not an intact checkpoint ({error})"


def manifest_step(path: Path, *, unknown: float = 0) -> float:
    """Return the step in a checkpoint's manifest."""
    with suppress(ValueError, OSError, AttributeError, TypeError):
        return int(json.loads(read_regular(manifest_of(path))).get("step") or 0)
    return unknown


def manifest_epoch(path: Path) -> int | None:
    """Return the epoch, from 0, in a checkpoint's manifest; None if unknown."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        return int(json.loads(read_regular(manifest_of(path)))["epoch"])
    return None


def logged_before(path: Path) -> tuple[int, int] | None:
    """Return the rows of metrics.csv and the step of the loggers' next values at a save; None if unknown."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        logged = json.loads(read_regular(manifest_of(path)))["logged"]
        return int(logged["rows"]), int(logged["step"])
    return None
