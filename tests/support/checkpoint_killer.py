"""Saves checkpoints in children that are killed at chosen moments, and tells what each kill left behind.

    python tests/support/checkpoint_killer.py <folder> <kills> <MB of a checkpoint> <name of a CheckpointIO>

Every tensor of generation n is filled with n, so a mixture of two generations would be seen. Writes one JSON list to
standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# started as a file, the path begins with this folder: put the root there instead
sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO  # noqa: E402
from fulgurite.checkpoints.io import VerifiedCheckpointIO  # noqa: E402
from fulgurite.checkpoints.manifest import verify  # noqa: E402

PARTS = 10
WRITERS = {kind.__name__: kind for kind in (VerifiedCheckpointIO, AsyncVerifiedCheckpointIO)}


def checkpoint(generation: int, size: int) -> dict[str, Any]:
    """Return a checkpoint of `size` bytes."""
    values = {str(part): torch.full((size // 4 // PARTS,), float(generation)) for part in range(PARTS)}
    return {"state_dict": values, "global_step": generation, "epoch": 0}


def save_for_ever(files: VerifiedCheckpointIO, path: Path, generation: int, size: int) -> None:
    """Save one generation after the other."""
    while True:
        files.save_checkpoint(checkpoint(generation, size), path)
        generation += 1


def wait_for_moment(folder: Path, bytes_written: int, more: float) -> None:
    """Return when a file that is being written has so many bytes, and some seconds have passed since."""
    while True:
        for file in folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if file.stat().st_size >= bytes_written:
                    time.sleep(more)
                    return


def generation_in(path: Path) -> int | None:
    """Return which generation a file holds; None when it is not one intact generation."""
    values = torch.load(path, weights_only=True)
    found = {float(value) for part in values["state_dict"].values() for value in part.aminmax()}
    return int(values["global_step"]) if found == {float(values["global_step"])} else None


def main(folder: Path, kills: int, size: int, writer: str) -> list[dict[str, Any]]:
    """Kill that many children and return what stood in the folder after each."""
    torch.set_num_threads(1)
    last, looks = folder / "last.ckpt", []
    VerifiedCheckpointIO().save_checkpoint(checkpoint(0, size), last)
    for kill in range(kills):
        before = generation_in(last)
        assert before is not None
        child = os.fork()
        if child == 0:
            save_for_ever(WRITERS[writer](), last, before + 1, size)
        # from the first byte to the last; every fourth one is hit later: while it is synced, linked, renamed, described
        share = kill / max(kills - 1, 1)
        wait_for_moment(folder, int(share * size), 0.02 * share if kill % 4 == 3 else 0.0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        previous = last.with_name("last-previous.ckpt")
        looks.append(
            {
                "before": before,
                "last": generation_in(last),
                "damage": verify(last),
                "previous": generation_in(previous) if previous.exists() else None,
                "previous_damage": verify(previous) if previous.exists() else "",
                "left": len(list(folder.glob(".*.tmp"))),
            }
        )
    VerifiedCheckpointIO().save_checkpoint(checkpoint(0, size), last)
    return looks


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(float(sys.argv[3]) * 1e6), sys.argv[4])))
