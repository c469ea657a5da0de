"""Estimate the size of checkpoints, warn when the disk is too small, and explain a full disk."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch.nn.parameter import is_lazy

from fulgurite.checkpoints.manifest import suggest_intact
from fulgurite.core.context import setting
from fulgurite.core.formatting import format_bytes
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

WANTED_CHECKPOINTS = 3  # two generations and the one being written


def expected_size(model: LightningModule) -> int:
    """Estimate the bytes of a checkpoint: the state_dict and two moments per trained parameter.

    Parameters of lazy layers have no shape yet and are not counted.
    """
    state = [value for value in model.state_dict().values() if isinstance(value, torch.Tensor)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kinds = [(value, 1) for value in state] + [(parameter, 2) for parameter in trained]
    return sum(times * value.numel() * value.element_size() for value, times in kinds if not is_lazy(value))


def warn_if_disk_full_soon(folder: Path, size: int) -> None:
    """Warn when a disk has less free space than three checkpoints of `size` bytes need."""
    if (free := free_bytes(folder)) < WANTED_CHECKPOINTS * size:
        log.warning(
            "%s: has %s free, but a checkpoint takes about %s, and saving needs three. Free some space, or set %s.",
            folder,
            format_bytes(free, rounded=True),
            format_bytes(size, rounded=True),
            _another_disk(),
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _another_disk() -> str:
    return setting("paths.log_dir=<folder on another disk>", "dirpath=<folder on another disk>")


def explain_disk_full(path: Path, error: OSError, size: int) -> str:
    """Return one line about a full disk: the file of `size` bytes, the reason, the remedy, an intact checkpoint."""
    limit = "; ulimit -f limits the file size" if error.errno == errno.EFBIG else ""
    intact = f"resume from the intact previous one with ckpt_path={path}" if path.exists() else suggest_intact(path)
    free, needed = (format_bytes(number, rounded=True) for number in (free_bytes(path.parent), size))
    return (
        f"{path}: no space for a checkpoint of {needed} ({error.strerror}; {free} free{limit}). "
        f"Free some space, or set {_another_disk()}; {intact}."
    )
