"""Save checkpoints in children that are killed at chosen moments, and return what each kill left behind.

Every tensor of generation n is filled with n, so a mixture of two generations would be seen.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.manifest import verify
from tests.support.cli import WARM

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


def kill_writers(
    folder: Path, kills: int, size: int, writer: str, temporary: str | None = None, timeout: float = 300
) -> list[dict[str, Any]]:
    """Kill that many processes that save, one after the other, and return what stood in the folder after each.

    Args:
        folder: Where they save.
        kills: Number of kills.
        size: Bytes of a checkpoint.
        writer: Name of a CheckpointIO.
        temporary: Folder for temporary files; the system's by default.
        timeout: Seconds after which the test fails.
    """
    with tempfile.NamedTemporaryFile("r") as output:
        parent = WARM.Process(target=_kill_children, args=(folder, kills, size, writer, temporary, output.name))
        parent.start()
        parent.join(timeout)
        parent.kill()
        assert parent.exitcode == 0
        looks: list[dict[str, Any]] = json.load(output)
    return looks


def _kill_children(folder: Path, kills: int, size: int, writer: str, temporary: str | None, output: str) -> None:
    torch.set_num_threads(1)
    if temporary:
        os.environ["TMPDIR"] = temporary
        tempfile.tempdir = None  # read it again
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
    Path(output).write_text(json.dumps(looks))
