"""Download, check and memory-map IDX files, the format of MNIST.

Format: http://yann.lecun.com/exdb/mnist (two zero bytes, type, number of axes, then each axis as a big-endian uint32).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fulgurite.core.download import download
from fulgurite.core.errors import UserError
from fulgurite.core.files import BLOCK, file_lock, open_atomic, remove_leftovers, sha256_of, write_atomic
from fulgurite.core.rank_logging import RankedLogger

MARKER = "prepared.json"  # {file name: {"sha256": hex, "mtime_ns": int}}, written last

log = RankedLogger(__name__)


@dataclass(frozen=True)
class IdxFile:
    """One published file and its checksums, in hex digits."""

    name: str  # of the unpacked file; the published file has `.gz` appended
    sha256: str  # of the unpacked bytes
    gz_sha256: str  # of the published file


def prepare_idx(
    folder: Path, files: Sequence[IdxFile], mirrors: Sequence[str], local_dirs: Sequence[Path] = ()
) -> None:
    """Unpack and check all `files` in `folder`; returns at once if they are there.

    The source of a file is `folder` itself (a `.gz` copied there by hand), else `local_dirs`, else the mirrors.
    Concurrent processes wait for the first one.

    Args:
        folder: Created if missing.
        files: Files to prepare.
        mirrors: Base URLs, each with its trailing slash.
        local_dirs: Folders that may have the files, packed or not.

    Raises:
        UserError: No source has a file, or the folder cannot be written.

    Example:
        >>> prepare_idx(Path("data/mnist"), [IdxFile("t10k-labels-idx1-ubyte", sha256, gz_sha256)], [mirror])
        >>> labels = map_idx(Path("data/mnist/t10k-labels-idx1-ubyte"))
    """
    if is_prepared(folder, files):
        return
    try:
        with file_lock(folder / ".lock"):
            if is_prepared(folder, files):
                return
            for file in files:
                if not _is_intact(folder / file.name, file, None):
                    _archive(folder / file.name, "the checksum is wrong")
                    _fetch(folder, file, mirrors, local_dirs)
            mark = {
                file.name: {"sha256": file.sha256, "mtime_ns": (folder / file.name).stat().st_mtime_ns}
                for file in files
            }
            write_atomic(folder / MARKER, json.dumps(mark, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"data.data_dir={folder}: cannot be written ({error.strerror or error}). "
            "Set another folder with data.data_dir=... or paths.data_dir=..."
        ) from error


def is_prepared(folder: Path, files: Sequence[IdxFile]) -> bool:
    """Return whether `folder` has all `files` intact; reads only files whose modification time has changed."""
    try:
        mark = json.loads((folder / MARKER).read_bytes())
        return all(
            mark[file.name]["sha256"] == file.sha256
            and _is_intact(folder / file.name, file, mark[file.name]["mtime_ns"])
            for file in files
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_intact(path: Path, file: IdxFile, mtime_ns: int | None) -> bool:
    """Compare the size with the header, then the modification time, then the checksum."""
    try:
        shape, start = _read_header(path)
        found = path.stat()
    except (OSError, ValueError):
        return False
    is_current = found.st_mtime_ns == mtime_ns
    return found.st_size == start + math.prod(shape) and (is_current or sha256_of(path) == file.sha256)


def _fetch(folder: Path, file: IdxFile, mirrors: Sequence[str], local_dirs: Sequence[Path]) -> None:
    target, packed = folder / file.name, folder / f"{file.name}.gz"
    remove_leftovers(folder, f"{file.name}.*")
    sources = [packed] + [local / name for local in local_dirs for name in (packed.name, file.name)]
    for source in filter(Path.is_file, sources):
        try:
            _unpack(source, target, file.sha256)
            return
        except _UnusableError as reason:  # noqa: PERF203 - a handful of files
            log.warning("%s: skipped, %s", source, reason)
    _archive(packed, "it cannot be unpacked")
    download([mirror + packed.name for mirror in mirrors], packed, file.gz_sha256)
    _unpack(packed, target, file.sha256)
    packed.unlink()


def _archive(path: Path, reason: str) -> None:
    """Rename a file, if it exists, to `<name>.corrupt-<time>`."""
    if path.exists():
        aside = path.with_name(f"{path.name}.corrupt-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}")
        path.replace(aside)
        log.warning("%s: %s. Renamed to %s; the file is made again.", path, reason, aside.name)


class _UnusableError(Exception):
    """A source does not have the file."""


def _unpack(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open_atomic(target) as out:
        for block in _blocks(source):
            digest.update(block)
            out.write(block)
        if digest.hexdigest() != sha256:
            raise _UnusableError(f"its sha256 is {digest.hexdigest()[:12]}..., expected {sha256[:12]}...")


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise _UnusableError(f"it cannot be read ({error})") from error


def _read_header(path: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape and the offset of the data; ValueError if the file is not an IDX file of bytes."""
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\x00\x00\x08":  # 8 is the type of unsigned bytes
            raise ValueError(f"{path}: not an IDX file of unsigned bytes")
        axes = file.read(4 * head[3])
    if len(axes) < 4 * head[3]:
        raise ValueError(f"{path}: the header is truncated")
    return struct.unpack(f">{head[3]}I", axes), 4 + len(axes)


def map_idx(path: Path) -> Tensor:
    """Map an IDX file of bytes into memory; pages are read when they are indexed.

    Args:
        path: An unpacked IDX file.

    Returns:
        Read-only uint8 tensor of the header's shape.

    Raises:
        UserError: The file is missing, of another format, or does not have the size that its header gives.

    Example:
        >>> images = map_idx(Path("data/mnist/t10k-images-idx3-ubyte"))  # [10000, 28, 28]
    """
    try:
        shape, start = _read_header(path)
        size, expected = path.stat().st_size, start + math.prod(shape)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as IDX ({error}). Run prepare_data() to make it.") from error
    if size != expected:
        raise UserError(f"{path}: has {size} bytes, but its header gives {expected}. Delete it, then run again.")
    array = np.memmap(path, np.uint8, mode="r", offset=start, shape=shape)
    with warnings.catch_warnings():  # torch warns that the mapping is read-only, as intended
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
