"""Which checkpoint file is whole: the manifest beside each tells it from a damaged one.

Beside `x.ckpt` lies `x.ckpt.json`: sha256 and size of the file, step and epoch it was saved at, config_hash of the run
(see record.py) and versions. Of `last.ckpt` the generation before stays as `last-previous.ckpt`. How both are written
so that a kill leaves one of them is in checkpoint_files.py.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from fulgurite.core.errors import UserError
from fulgurite.core.files import sha256_of

LAST = "last.ckpt"  # the name whose generation before is kept
_sums: dict[tuple[Path, int, int, int], str] = {}  # of files by path, size, time of change and number


def manifest_of(path: Path) -> Path:
    """Return where a checkpoint's manifest lies."""
    return path.with_name(f"{path.name}.json")


def previous_of(path: Path) -> Path:
    """Return where the generation before a checkpoint lies."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def verify(path: Path) -> str:
    """Return how a checkpoint differs from its manifest; an empty string when it does not, or when it has none.

    Args:
        path: An existing file.
    """
    manifest = manifest_of(path)
    if not manifest.is_file() or not path.is_file():
        return ""
    try:
        told = json.loads(manifest.read_text())
        sha256, size = str(told["sha256"]), int(told["size"])
    except (ValueError, KeyError, TypeError):
        return f"its manifest {manifest.name} cannot be read"
    if (found := path.stat().st_size) != size:
        return f"it has {found} bytes, {manifest.name} says {size}"
    if (digest := _sum_of(path)) != sha256:
        return f"its sha256 is {digest[:12]}..., {manifest.name} says {sha256[:12]}..."
    return ""


def _sum_of(path: Path) -> str:
    """Return a file's sha256, taken once: a start looks at its checkpoint twice, and large ones take seconds."""
    found = path.stat()
    key = (path, found.st_size, found.st_mtime_ns, found.st_ino)
    if key not in _sums:
        _sums[key] = sha256_of(path)
    return _sums[key]


def require_intact(path: Path) -> None:
    """Refuse a checkpoint that is not the file its manifest describes.

    Raises:
        UserError: It differs; the newest other one of its folder that is whole is named.
    """
    if damage := verify(path):
        raise UserError(
            f"{path}: is damaged or was changed after it was saved ({damage}); {suggest_intact(path)}, "
            f"or remove {manifest_of(path).name} to load it unchecked"
        )


def suggest_intact(path: Path) -> str:
    """Return advice which other checkpoint of the same folder to take: the newest one that its manifest vouches for."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and manifest_of(other).is_file()]
    for other in sorted(others, key=manifest_step, reverse=True):
        if not verify(other):
            return f"take {other}, which is whole (step {manifest_step(other)})"
    return "take another one; none beside it is known to be whole"


def newest_intact(folder: Path) -> tuple[Path | None, list[str]]:
    """Find what a run can go on from: the newest of `last.ckpt` and the generation before it that is whole.

    A file without a manifest, as a kill right after it took its name leaves one, is read through to find out.

    Args:
        folder: The checkpoints of a run; it need not exist.

    Returns:
        The file, or None when there is none; and for each damaged one that was passed over a line `<file>: <damage>`.
    """
    last = folder / LAST
    passed_over: list[str] = []
    # the two can only stand the other way round where a person has moved them; sorting is stable
    for path in sorted(
        (last, previous_of(last)),
        key=lambda path: manifest_step(path, unknown=math.inf if path == last else 0),
        reverse=True,
    ):
        if not path.is_file():
            continue
        damage = verify(path) if manifest_of(path).is_file() else _find_gap(path)
        if not damage:
            return path, passed_over
        passed_over.append(f"{path}: {damage}")
    return None, passed_over


def _find_gap(path: Path) -> str:
    """Return how a file without a manifest differs from what torch writes, a zip archive with a sum for each part."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"its part {part} is damaged" if (part := archive.testzip()) else ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return f"it is not a whole checkpoint ({error})"


def manifest_step(path: Path, *, unknown: float = 0) -> float:
    """Return the step that a checkpoint's manifest tells."""
    with suppress(ValueError, OSError, AttributeError, TypeError):
        return int(json.loads(manifest_of(path).read_text()).get("step") or 0)
    return unknown
