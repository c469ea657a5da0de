"""Checkpoint files that are whole or absent, each with a manifest that tells it from a damaged one.

Beside `x.ckpt` lies `x.ckpt.json`: sha256 and size of the file, step and epoch it was saved at, config_hash of the run
(see record.py) and versions. Of `last.ckpt` the generation before stays as `last-previous.ckpt`. A file is written
beside its target, forced to the disk, and only then takes its name, so a kill or a full disk at any moment leaves the
one before. A file never lies beside the manifest of another one: the old manifest goes before the new file comes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from torch.nn.parameter import is_lazy

from src.base.errors import DiskFull, UserError, is_disk_full
from src.base.files import open_atomic, remove_leftovers, sha256_of, write_atomic
from src.base.logs import RankedLogger
from src.run.record import config_hash, versions

log = RankedLogger(__name__)

LAST = "last.ckpt"  # the name whose generation before is kept
SPARE = 3  # free space that is wanted at the start, in checkpoints: two generations and the one being written


def keep_checkpoints_whole(trainer: Trainer, model: LightningModule, cfg: DictConfig) -> None:
    """Have a trainer write its checkpoints as this module describes, and warn when the disk has little room for them.

    Strategies that bring a writer of their own (TPU, a plugin in the config) keep it.

    Args:
        trainer: The trainer of the run.
        model: What it will train.
        cfg: The run's config.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = CheckpointFiles({"config_hash": config_hash(cfg), "versions": versions()})
    if cfg.get("train") and not getattr(trainer, "fast_dev_run", False):
        for callback in trainer.checkpoint_callbacks:
            folder = str(getattr(callback, "dirpath", None) or cfg.paths.output_dir)
            if isinstance(callback, ModelCheckpoint) and "://" not in folder:
                warn_of_little_space(Path(folder), expected_size(model))
                return


class CheckpointFiles(TorchCheckpointIO):
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
        written: _Hashed | None = None
        try:
            with open_atomic(path) as file:
                written = _Hashed(file)
                _serialise(checkpoint, written)
                file.flush()
                os.fsync(file.fileno())  # the generation before moves only when this one is safe
                _make_way(path)
            facts = {"step": checkpoint.get("global_step"), "epoch": checkpoint.get("epoch"), **self.facts}
            content = {"sha256": written.digest.hexdigest(), "size": written.size, **facts}
            write_atomic(manifest_of(path), json.dumps(content, indent=2) + "\n")
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(_no_room(path, error, written.size if written else 0)) from error
            raise

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its manifest."""
        if "://" not in str(path):
            manifest_of(Path(path)).unlink(missing_ok=True)
        super().remove_checkpoint(path)


class _Hashed:
    """A file that is summed up while it is written, so it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, block: Any) -> int:
        if self.error is None:
            try:
                self._file.write(block)
            except OSError as error:
                # torch's writer would close over it and raise an error of its own, about positions: it is told later
                self.error = error
        self.digest.update(block)
        self.size += len(block)
        return len(block)

    def flush(self) -> None:
        """Do nothing: the file is flushed when all of it is written."""


def _serialise(checkpoint: Mapping[str, Any], target: _Hashed) -> None:
    torch.save(checkpoint, target)  # type: ignore[arg-type]  # it calls write and flush alone
    if target.error is not None:
        raise target.error


def _make_way(path: Path) -> None:
    """Take the manifest away from a file that is about to be replaced, and keep a `last.ckpt` as the one before."""
    manifest = manifest_of(path)
    if path.name != LAST or not path.exists():
        manifest.unlink(missing_ok=True)
        return
    previous = previous_of(path)
    manifest_of(previous).unlink(missing_ok=True)
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)  # a second name for the same bytes: there is a last.ckpt at every moment
    except OSError:  # a file system without links: for a moment there is only the one before
        path.replace(previous)
    if manifest.exists():
        manifest.replace(manifest_of(previous))


def manifest_of(path: Path) -> Path:
    """Return where a checkpoint's manifest lies."""
    return path.with_name(f"{path.name}.json")


def previous_of(path: Path) -> Path:
    """Return where the generation before a checkpoint lies."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def find_damage(path: Path) -> str:
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
    if (digest := sha256_of(path)) != sha256:
        return f"its sha256 is {digest[:12]}..., {manifest.name} says {sha256[:12]}..."
    return ""


def require_whole(path: Path) -> None:
    """Refuse a checkpoint that is not the file its manifest describes.

    Raises:
        UserError: It differs; the newest other one of its folder that is whole is named.
    """
    if damage := find_damage(path):
        raise UserError(
            f"{path}: is damaged or was changed after it was saved ({damage}); {another_whole(path)}, "
            f"or remove {manifest_of(path).name} to load it unchecked"
        )


def another_whole(path: Path) -> str:
    """Return advice which other checkpoint of the same folder to take: the newest one that its manifest vouches for."""
    others = [other for other in path.parent.glob("*.ckpt") if other != path and manifest_of(other).is_file()]
    for other in sorted(others, key=told_step, reverse=True):
        if not find_damage(other):
            return f"take {other}, which is whole (step {told_step(other)})"
    return "take another one; none beside it is known to be whole"


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
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
        key=lambda path: told_step(path, unknown=math.inf if path == last else 0),
        reverse=True,
    ):
        if not path.is_file():
            continue
        damage = find_damage(path) if manifest_of(path).is_file() else _find_gap(path)
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


def told_step(path: Path, *, unknown: float = 0) -> float:
    """Return the step that a checkpoint's manifest tells."""
    with suppress(ValueError, OSError, AttributeError, TypeError):
        return int(json.loads(manifest_of(path).read_text()).get("step") or 0)
    return unknown


def expected_size(model: LightningModule) -> int:
    """Return about how many bytes a checkpoint of a model will have: its state and two moments a trained parameter.

    Args:
        model: Parameters of lazy layers, whose shape is not known yet, do not count.
    """
    state = [value for value in model.state_dict().values() if isinstance(value, torch.Tensor)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kinds = [(value, 1) for value in state] + [(parameter, 2) for parameter in trained]
    return sum(times * value.numel() * value.element_size() for value, times in kinds if not is_lazy(value))


def warn_of_little_space(folder: Path, size: int) -> None:
    """Warn when a disk has less room than three checkpoints.

    Args:
        folder: Where the checkpoints will go; it need not exist yet.
        size: Bytes of one checkpoint.
    """
    if (free := _free(folder)) < SPARE * size:
        log.warning(
            "%s: %s free, and a checkpoint will take about %s, three of them while one is replaced; "
            "free space or write elsewhere with paths.log_dir=<folder on another disk>",
            folder,
            _shown(free),
            _shown(size),
        )


def _free(folder: Path) -> int:
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def _no_room(path: Path, error: OSError, size: int) -> str:
    limit = "; the limit is on one file: ulimit -f" if error.errno == errno.EFBIG else ""
    before = f"the one before is whole, go on with ckpt_path={path}" if path.exists() else another_whole(path)
    free = _shown(_free(path.parent))
    return (
        f"{path}: no room for a checkpoint of {_shown(size)} ({error.strerror}; {free} free{limit}); "
        f"free space or write elsewhere with paths.log_dir=<folder on another disk>; {before}"
    )


def _shown(size: float) -> str:
    """Return bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
