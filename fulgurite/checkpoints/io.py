"""Writes checkpoint files that are whole or absent, each with the manifest that checkpoints.py reads.

A file is written beside its target, forced to the disk, and only then takes its name, so a kill or a full disk at any
moment leaves the one before. A file never lies beside the manifest of another one: the old manifest goes before the
new file comes.
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

from fulgurite.checkpoints.disk_space import explain_no_room
from fulgurite.checkpoints.manifest import LAST, manifest_of, previous_of
from fulgurite.core.errors import DiskFull, is_disk_full
from fulgurite.core.files import open_atomic, remove_leftovers, temporary_path, write_atomic

BLOCK = 1 << 18  # bytes summed up at a time: they stay in the processor's own memory
LARGE = 16 << 20  # bytes from which on the file system takes longer to free a file than it takes to start a thread


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Writes, replaces and removes checkpoints together with their manifests.

    Args:
        facts: What every manifest says beside the file's own sum, size, step and epoch.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        self.facts = dict(facts or {})
        self._swept: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write a checkpoint and its manifest; a remote path is left to Lightning.

        Args:
            checkpoint: What `torch.save` takes; its `global_step` and `epoch` go into the manifest.
            path: The file to make or replace; its folder is made when missing.
            storage_options: Taken by no local file.

        Raises:
            DiskFull: The disk, a quota or a limit has no room; what was there before is whole.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in self._swept:  # what a killed process left; a folder of checkpoints belongs to one run
            remove_leftovers(path.parent, "*.ckpt*")
            self._swept.add(path.parent)
        written: _HashingWriter | None = None
        try:
            with open_atomic(path) as file:
                written = _HashingWriter(file)
                digest = _serialise(checkpoint, written)  # on the disk: the generation before moves only then
                _rotate(path)
            facts = {"step": checkpoint.get("global_step"), "epoch": checkpoint.get("epoch"), **self.facts}
            content = {"sha256": digest, "size": written.size, **facts}
            write_atomic(manifest_of(path), json.dumps(content, indent=2) + "\n")
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(explain_no_room(path, error, written.size if written else 0)) from error
            raise

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its manifest."""
        if "://" not in str(path):
            manifest_of(Path(path)).unlink(missing_ok=True)
            if Path(path).is_file():
                _remove(Path(path))
                return
        super().remove_checkpoint(path)


class _HashingWriter:
    """A file that is summed up by a second thread while it is written, so that neither waits for the other.

    The thread reads behind the writer what the system still has in memory. It cannot be given the blocks themselves:
    torch lends them for the time of a call.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._told = 0
        self._sizes: SimpleQueue[int | None] = SimpleQueue()
        self._digest = sha256()
        self._thread = Thread(target=self._sum_up, name="checkpoint-sum", daemon=True)
        self._failure: OSError | None = None
        self.size = 0
        self.error: OSError | None = None
        self._thread.start()

    def write(self, block: Any) -> int:
        if self.error is None:
            try:
                self._file.write(block)
            except OSError as error:
                # torch's writer would close over it and raise an error of its own, about positions: it is told later
                self.error = error
        self.size += len(block)
        if self.error is None and self.size - self._told >= 4 * BLOCK:
            self._file.flush()
            self._tell(self.size)
        return len(block)

    def flush(self) -> None:
        """Do nothing: the file is flushed when all of it is written."""

    def conclude(self) -> str:
        """Force the file to the disk and return its hex sha256; to be called once, also after an error."""
        try:
            if self.error is not None:
                raise self.error
            self._file.flush()
            self._tell(self.size)
            os.fsync(self._file.fileno())
        finally:
            self._sizes.put(None)
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._digest.hexdigest()

    def _tell(self, size: int) -> None:
        self._told = size
        self._sizes.put(size)

    def _sum_up(self) -> None:
        try:
            with Path(self._file.name).open("rb", buffering=0) as file:
                block, done = memoryview(bytearray(BLOCK)), 0
                while (size := self._sizes.get()) is not None:
                    while done < size:
                        count = file.readinto(block[: min(BLOCK, size - done)])
                        self._digest.update(block[:count])
                        done += count
        except OSError as error:
            self._failure = error


def _serialise(checkpoint: Mapping[str, Any], target: _HashingWriter) -> str:
    """Write a checkpoint to the disk and return its hex sha256."""
    try:
        torch.save(checkpoint, target)  # type: ignore[arg-type]  # it calls write and flush alone
    finally:
        digest = target.conclude()
    return digest


def _rotate(path: Path) -> None:
    """Take the manifest away from a file that is about to be replaced, and keep a `last.ckpt` as the one before."""
    manifest = manifest_of(path)
    if path.name != LAST or not path.exists():
        manifest.unlink(missing_ok=True)
        return
    previous = previous_of(path)
    manifest_of(previous).unlink(missing_ok=True)
    _remove(previous)
    try:
        os.link(path, previous)  # a second name for the same bytes: there is a last.ckpt at every moment
    except OSError:  # a file system without links: for a moment there is only the one before
        path.replace(previous)
    if manifest.exists():
        manifest.replace(manifest_of(previous))


def _remove(path: Path) -> None:
    """Remove a file that may not exist; the space of a large one is given back while the run goes on."""
    if not path.exists() or path.stat().st_size < LARGE:
        path.unlink(missing_ok=True)
        return
    aside = temporary_path(path)
    path.replace(aside)
    Thread(target=aside.unlink, kwargs={"missing_ok": True}, name="checkpoint-removal").start()
