"""Write files atomically, compute checksums, lock between processes."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fulgurite.core.errors import UserError

MAX_TEXT = 1 << 26  # bytes of a file that is read as a whole, and of one that is read line by line
MAX_LINES = 1 << 30
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


def make_folder(folder: Path, subject: str, remedy: str = "Set another folder") -> None:
    """Create a folder unless it exists; a UserError says that `subject` cannot be created, and the remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{subject} cannot be created ({error.strerror}). {remedy}.") from error


def temporary_path(path: Path) -> Path:
    """Return a temporary name beside a file, which `remove_leftovers` recognizes."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


def remove_leftovers(folder: Path, names: str) -> None:
    """Remove the temporary files of killed writers of `names`, e.g. `*.ckpt`.

    No other process may write to the folder.
    """
    for temporary in folder.glob(f".{names}.tmp"):
        temporary.unlink(missing_ok=True)


def open_regular(path: str | Path, max_bytes: int = MAX_TEXT) -> BinaryIO:
    """Open a file that anybody may have put there: a pipe would block its reader, a device may have no end.

    Raises:
        OSError: The file is no regular one, is larger than `max_bytes`, or cannot be opened.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - a Path costs more than the read
    if wrong := why_unreadable(os.fstat(file.fileno()), max_bytes):
        file.close()
        raise OSError(wrong)
    return file


def read_regular(path: str | Path, max_bytes: int = MAX_TEXT) -> bytes:
    """Return the content of a file, under the conditions of `open_regular`."""
    with open_regular(path, max_bytes) as file:
        return file.read()


def why_unreadable(found: os.stat_result, max_bytes: int) -> str:
    """Return why a file of another origin is not read; empty if it is."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    return f"has {found.st_size} bytes, more than {max_bytes}" if found.st_size > max_bytes else ""


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer; not on Windows


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
