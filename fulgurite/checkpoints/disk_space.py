"""Room on the disk for checkpoints: how much one takes, whether there is enough, what to say when there is not."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch.nn.parameter import is_lazy

from fulgurite.checkpoints.manifest import suggest_intact
from fulgurite.core.formatting import format_bytes
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

SPARE = 3  # free space that is wanted at the start, in checkpoints: two generations and the one being written


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
    if (free := free_bytes(folder)) < SPARE * size:
        log.warning(
            "%s: %s free, and a checkpoint will take about %s, three of them while one is replaced; "
            "free space or write elsewhere with paths.log_dir=<folder on another disk>",
            folder,
            format_bytes(free, rounded=True),
            format_bytes(size, rounded=True),
        )


def free_bytes(folder: Path) -> int:
    """Return how many bytes the disk of a folder, which need not exist yet, has left."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def explain_no_room(path: Path, error: OSError, size: int) -> str:
    """Return one line: what has no room, why, what to do, and what is whole still.

    Args:
        path: The checkpoint that was being written.
        error: What the system said.
        size: Bytes that were written, or tried to be.
    """
    limit = "; the limit is on one file: ulimit -f" if error.errno == errno.EFBIG else ""
    before = f"the one before is whole, go on with ckpt_path={path}" if path.exists() else suggest_intact(path)
    free, needed = (format_bytes(number, rounded=True) for number in (free_bytes(path.parent), size))
    return (
        f"{path}: no room for a checkpoint of {needed} ({error.strerror}; {free} free{limit}); "
        f"free space or write elsewhere with paths.log_dir=<folder on another disk>; {before}"
    )
