"""Write checkpoints atomically, each with a manifest (see manifest.py).

A file is written beside its target, synced to the disk, then renamed, so a kill or a full disk at any moment leaves the
previous one. The old manifest is removed before the new file appears, so a manifest never describes another file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from fulgurite.checkpoints.disk_space import explain_disk_full
from fulgurite.checkpoints.manifest import (
    LAST,
    manifest_of,
    previous_of,
    require_intact,
    suggest_intact,
    verify_archive,
)
from fulgurite.checkpoints.state_paths import has_scheme
from fulgurite.core.errors import DiskFull, UserError, is_disk_full
from fulgurite.core.files import open_atomic, remove_leftovers, temporary_path, write_atomic
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.runs.layout import LOGGED

log = RankedLogger(__name__)

BLOCK_BYTES = 1 << 18  # hashed at a time; fits the CPU cache
LARGE_BYTES = 16 << 20  # deleting a larger file takes longer than starting a thread
_written_addresses: set[str] = set()  # by this process


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Writes, verifies, replaces and removes checkpoints together with their manifests.

    Args:
        metadata: Values of every manifest beside the file's own checksum, size, step and epoch.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        self.metadata = dict(metadata or {})
        self._cleaned: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write a checkpoint and its manifest; Lightning writes to a remote path.

        Args:
            checkpoint: Its `global_step` and `epoch` go into the manifest, and what loggers had by then.
            path: The file to create or replace; its folder is created.
            storage_options: Not supported for local files.

        Raises:
            DiskFull: The disk, a quota or a limit is full; existing checkpoints are intact.
        """
        if storage_options is not None or has_scheme(str(path)):
            super().save_checkpoint(checkpoint, path, storage_options)
            _written_addresses.add(str(path))
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in self._cleaned:  # a killed process left temporary files; the folder belongs to one run
            remove_leftovers(path.parent, "*.ckpt*")
            self._cleaned.add(path.parent)
        written: _HashingWriter | None = None
        try:
            with open_atomic(path) as file:
                written = _HashingWriter(file)
                try:
                    torch.save(checkpoint, written)  # type: ignore[arg-type]  # calls write and flush only
                finally:
                    digest = written.finish()
                _rotate(path)  # the new file is synced: only now the previous generation may move
            position = {"step": checkpoint.get("global_step"), "epoch": checkpoint.get("epoch")}
            logged = {"logged": checkpoint[LOGGED]} if LOGGED in checkpoint else {}
            content = {"sha256": digest, "size": written.size, **position, **logged, **self.metadata}
            write_atomic(manifest_of(path), json.dumps(content, indent=2) + "\n")
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(explain_disk_full(path, error, written.size if written else 0)) from error
            raise

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint, which must match its manifest if it has one; arguments as in Lightning.

        Raises:
            UserError: The file is damaged or was changed; the message names the newest intact one of its folder.
        """
        if is_local := not has_scheme(str(path)):
            require_intact(Path(path))
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except Exception as error:
            if is_local and Path(path).is_file() and (damage := verify_archive(Path(path))):
                raise UserError(f"{path}: {damage}; {suggest_intact(Path(path))}.") from error
            raise

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its manifest; at an address, only what this process wrote there."""
        if has_scheme(str(path)):
            if str(path) not in _written_addresses:
                log.warning("%s is not removed: another process wrote it. Remove it by hand.", path)
                return
            _written_addresses.remove(str(path))
        else:
            manifest_of(Path(path)).unlink(missing_ok=True)
            if Path(path).is_file():
                _remove(Path(path))
                return
        super().remove_checkpoint(path)


class _HashingWriter:
    """A file that a second thread hashes while it is written.

    The thread reads the file from the page cache. It cannot get the blocks: torch reuses them after each call.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._announced = 0
        self._sizes: SimpleQueue[int | None] = SimpleQueue()
        self._digest = sha256()
        self._thread = Thread(target=self._hash_file, name="checkpoint-hash", daemon=True)
        self._failure: OSError | None = None
        self.size = 0
        self.error: OSError | None = None
        self._thread.start()

    def write(self, block: Any) -> int:
        if self.error is None:
            try:
                self._file.write(block)
            except OSError as error:
                # raised by `finish`: torch's writer would replace it by an error about positions
                self.error = error
        self.size += len(block)
        if self.error is None and self.size - self._announced >= 4 * BLOCK_BYTES:
            self._file.flush()
            self._announce(self.size)
        return len(block)

    def flush(self) -> None:
        """Do nothing: `finish` flushes the file."""

    def finish(self) -> str:
        """Sync the file to the disk and return its hex sha256; call once, also after an error."""
        try:
            if self.error is not None:
                raise self.error
            self._file.flush()
            self._announce(self.size)
            os.fsync(self._file.fileno())
        finally:
            self._sizes.put(None)
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._digest.hexdigest()

    def _announce(self, size: int) -> None:
        self._announced = size
        self._sizes.put(size)

    def _hash_file(self) -> None:
        try:
            with Path(self._file.name).open("rb", buffering=0) as file:
                block, done = memoryview(bytearray(BLOCK_BYTES)), 0
                while (size := self._sizes.get()) is not None:
                    while done < size:
                        count = file.readinto(block[: min(BLOCK_BYTES, size - done)])
                        self._digest.update(block[:count])
                        done += count
        except OSError as error:
            self._failure = error


def _rotate(path: Path) -> None:
    """Remove the manifest of a file to be replaced, and keep `last.ckpt` as the previous generation."""
    manifest = manifest_of(path)
    if path.name != LAST or not path.exists():
        manifest.unlink(missing_ok=True)
        return
    previous = previous_of(path)
    manifest_of(previous).unlink(missing_ok=True)
    _remove(previous)
    try:
        os.link(path, previous)  # a hard link: last.ckpt exists at every moment
    except OSError:  # no hard links: for a moment only the previous one exists
        path.replace(previous)
    if manifest.exists():
        manifest.replace(manifest_of(previous))


def _remove(path: Path) -> None:
    """Remove a file if it exists, a large one in a thread."""
    if not path.exists() or path.stat().st_size < LARGE_BYTES:
        path.unlink(missing_ok=True)
        return
    aside = temporary_path(path)
    path.replace(aside)
    Thread(target=aside.unlink, kwargs={"missing_ok": True}, name="checkpoint-removal").start()
