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
    """Open a file that replaces the old one only when the block ends without an error.

    The bytes are synced before the rename, so a crash or a power cut leaves the old file or the new one. The folder of
    `path` must exist; the open file has a temporary name in it.
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
    """Write text as UTF-8, or bytes; a reader sees the old content or the new one."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def temporary_path(path: Path) -> Path:
    """Return a temporary name beside a file, which `remove_leftovers` recognizes."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove the temporary files of killed writers of `names`, e.g. `*.ckpt`.

    No other process may write to the folder.
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
    """Hold a lock between processes; it ends with its holder, also by SIGKILL.

    Raises:
        UserError: Another process still holds the lock after `timeout` seconds.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(timeout=timeout)
    except Timeout:
        raise UserError(
            f"{path}: locked by another process for {timeout:g} s. Wait for that process, or stop it."
        ) from None
    with held:
        yield


def load_pickle(packed: bytes) -> Any:
    """Unpickle data of another process of the same sweep; never call it on user input."""
    return pickle.loads(packed)  # noqa: S301 - the sweep's own
