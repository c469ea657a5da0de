"""Write files atomically, compute checksums, lock between processes."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fulgurite.core.errors import UserError

BLOCK = 1 << 20  # bytes read or written at a time
LOCK_TIMEOUT = 600.0  # seconds; another process may download or prepare the same data


@contextmanager
def open_atomic(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces the old one only when the block ends without an error.

    The bytes are synced before the rename, so a crash or a power cut leaves the old file or the new one.

    Args:
        path: The file to create or replace; its folder must exist.

    Yields:
        The open binary file, under a temporary name in the same folder.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write `content` to `path` so that a reader sees the old content or the new one, never a part.

    Args:
        path: The file to create or replace; its folder must exist.
        content: Text (written as UTF-8) or bytes.
    """
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def temporary_path(path: Path) -> Path:
    """Return a temporary name beside a file, which `remove_leftovers` recognizes."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove the temporary files of killed writers from a folder that no other process writes to.

    Args:
        folder: The folder of the files.
        names: Pattern of the files that were being written, e.g. `*.ckpt`.
    """
    for temporary in folder.glob(f".{names}.tmp"):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str | Path) -> str:
    """Return the hex SHA-256 of a file's content, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def file_lock(path: str | Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold a lock between processes; the system releases it when its holder dies, also by SIGKILL.

    Args:
        path: The lock file; it and its folder are created.
        timeout: Seconds to wait for another holder.

    Raises:
        UserError: Another process still holds the lock after `timeout` seconds.
        OSError: The lock file cannot be created.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = FileLock(path)
    try:
        handle.acquire(timeout=timeout)
    except Timeout:
        raise UserError(
            f"{path}: locked by another process for {timeout:g} s. Wait for that process, or stop it."
        ) from None
    try:
        yield
    finally:
        handle.release()


def load_pickle(packed: bytes) -> Any:
    """Unpickle data of another process of the same sweep; never call it on user input.

    Args:
        packed: A pickled job, or its return value.
    """
    return pickle.loads(packed)  # noqa: S301 - the sweep's own
