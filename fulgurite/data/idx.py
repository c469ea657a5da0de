"""IDX files, the format of MNIST and its family: brought into a folder once, checked, and then mapped into memory.

A prepared folder holds the unpacked files and `prepared.json`, which is written last: without it nothing there counts.
A file that is not what it should be is moved aside as `<name>.corrupt-<time>`, and made again from its source.

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
from fulgurite.core.files import BLOCK, lock, open_atomic, sha256_of, write_atomic
from fulgurite.core.rank_logging import RankedLogger

MARKER = "prepared.json"  # {file name: {"sha256": hex, "mtime_ns": int}}
UBYTE = 0x08  # the only IDX type this family uses

log = RankedLogger(__name__)


@dataclass(frozen=True)
class IdxFile:
    """One published file and what proves that it is that file.

    Args:
        name: Name of the unpacked file; `.gz` is appended for the published one.
        sha256: Hex digest of the unpacked bytes, so it holds for every packing.
        gz_sha256: Hex digest of the published `.gz`.
    """

    name: str
    sha256: str
    gz_sha256: str


def prepare_idx(
    folder: Path, files: Sequence[IdxFile], mirrors: Sequence[str], local_dirs: Sequence[Path] = ()
) -> None:
    """Make `folder` hold all `files`, unpacked and checked; at once when it does already.

    A file is taken from `folder` itself (`.gz` put there by hand), else from `local_dirs`, else from the mirrors.
    Several processes may ask at the same time: one works, the others wait and find it done.

    Args:
        folder: Where the unpacked files go; made when missing.
        files: What is needed.
        mirrors: Base URLs, each with its trailing slash.
        local_dirs: Folders that may hold the files, packed or not.

    Raises:
        UserError: A file can be had from nowhere, or the folder cannot be written.
    """
    if is_prepared(folder, files):
        return
    try:
        with lock(folder / ".lock"):
            if is_prepared(folder, files):
                return
            for file in files:
                if not _is_intact(folder / file.name, file, None):
                    _archive(folder / file.name, "it is not the published file")
                    _fetch(folder, file, mirrors, local_dirs)
            mark = {
                file.name: {"sha256": file.sha256, "mtime_ns": (folder / file.name).stat().st_mtime_ns}
                for file in files
            }
            write_atomic(folder / MARKER, json.dumps(mark, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"data.data_dir={folder}: cannot be written ({error.strerror or error}); "
            "choose another folder with data.data_dir=... or paths.data_dir=..."
        ) from error


def is_prepared(folder: Path, files: Sequence[IdxFile]) -> bool:
    """Tell whether `folder` holds all `files` complete, without reading them unless something touched them since."""
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
    """Judge by the size the header announces, then by the time of the last change, and by the sum if that differs."""
    try:
        shape, start = _read_header(path)
        found = path.stat()
    except (OSError, ValueError):
        return False
    if found.st_size != start + math.prod(shape):
        return False
    return found.st_mtime_ns == mtime_ns or sha256_of(path) == file.sha256


def _fetch(folder: Path, file: IdxFile, mirrors: Sequence[str], local_dirs: Sequence[Path]) -> None:
    target, packed = folder / file.name, folder / f"{file.name}.gz"
    for leftover in folder.glob(f".{file.name}.*.tmp"):  # of a process that was killed here
        leftover.unlink()
    near = [packed] + [place / name for place in local_dirs for name in (packed.name, file.name)]
    if any(_try_unpack(source, target, file.sha256) for source in near if source.is_file()):
        return
    _archive(packed, "it cannot be used")
    download([mirror + packed.name for mirror in mirrors], packed, file.gz_sha256)
    _unpack(packed, target, file.sha256)
    packed.unlink()


def _archive(path: Path, reason: str) -> None:
    """Move a file, if it is there, out of the way under a name that says what it is."""
    if path.exists():
        aside = path.with_name(f"{path.name}.corrupt-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}")
        path.replace(aside)
        log.warning("%s: %s; moved to %s and made again from its source", path, reason, aside.name)


def _try_unpack(source: Path, target: Path, sha256: str) -> bool:
    try:
        _unpack(source, target, sha256)
    except _UnusableError as reason:
        log.warning("%s is not used: %s", source, reason)
        return False
    return True


class _UnusableError(Exception):
    """A source does not hold the file; the message says why."""


def _unpack(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open_atomic(target) as out:
        for block in _blocks(source):
            digest.update(block)
            out.write(block)
        if digest.hexdigest() != sha256:
            raise _UnusableError(f"its content has sha256 {digest.hexdigest()[:12]}..., expected {sha256[:12]}...")


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise _UnusableError(f"it cannot be read ({error})") from error


def _read_header(path: Path) -> tuple[tuple[int, ...], int]:
    """Return the array's shape and the byte its content starts at; ValueError when it is no IDX file of bytes."""
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != bytes((0, 0, UBYTE)):
            raise ValueError(f"{path}: not an IDX file of unsigned bytes")
        axes = file.read(4 * head[3])
    if len(axes) < 4 * head[3]:
        raise ValueError(f"{path}: its header is cut off")
    return struct.unpack(f">{head[3]}I", axes), 4 + len(axes)


def map_idx(path: Path) -> Tensor:
    """Map an IDX file of bytes into memory: nothing is read until it is indexed, and the system may drop it again.

    Args:
        path: An unpacked IDX file.

    Returns:
        uint8 tensor of the header's shape, to be read only: the mapping is not writable.

    Raises:
        UserError: The file is missing, of another format, or shorter or longer than its header says.
    """
    try:
        shape, start = _read_header(path)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as IDX ({error}); run prepare_data() to make it") from error
    if size != start + math.prod(shape):
        raise UserError(
            f"{path}: {size} bytes, but its header says {start + math.prod(shape)}; delete it to have it made again"
        )
    array = np.memmap(path, np.uint8, mode="r", offset=start, shape=shape)
    with warnings.catch_warnings():  # torch warns of the mapping being read-only, which is what is wanted
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
