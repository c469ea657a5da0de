"""P9: what it costs to write a checkpoint that a kill cannot destroy, in or behind training's way, and to check one."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from time import perf_counter

import torch

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.manifest import verify
from scripts.bench.measure import Bar, Row, alternate, ratios

PARTS = 20  # tensors


def checkpoint_rows(folder: Path, size: int, repeats: int) -> list[Row]:
    """Measure a save beside `torch.save` to a path that is forced to the disk.

    Both write into a new file while two older ones stand: a file that is written over in place finds its pages in
    memory, and a checkpoint that must survive a kill can never be written so.

    Args:
        folder: For the files; its disk is what is measured.
        size: Bytes of a checkpoint.
        repeats: Rounds that count.
    """
    tensors = {f"part{number}": torch.randn(size // 4 // PARTS) for number in range(PARTS)}
    checkpoint = {"state_dict": tensors, "global_step": 1, "epoch": 0}
    last, files, numbers = folder / "last.ckpt", VerifiedCheckpointIO(), count()

    def save_plain() -> float:
        number = next(numbers)
        plain = folder / f"plain-{number}.ckpt"
        start = perf_counter()
        torch.save(checkpoint, plain)
        handle = os.open(plain, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)
        seconds = perf_counter() - start
        (folder / f"plain-{number - 2}.ckpt").unlink(missing_ok=True)
        return seconds

    def save_ours() -> float:
        start = perf_counter()
        files.save_checkpoint(checkpoint, last)
        return perf_counter() - start

    def verify_ours() -> float:
        start = perf_counter()
        assert not verify(last)
        return perf_counter() - start

    behind = AsyncVerifiedCheckpointIO()

    def save_behind() -> float:
        start = perf_counter()
        behind.save_checkpoint(checkpoint, folder / "behind.ckpt")
        seconds = perf_counter() - start
        behind.finish()
        return seconds

    def copy() -> float:
        start = perf_counter()
        copies = [tensor.clone() for tensor in tensors.values()]
        seconds = perf_counter() - start
        assert len(copies) == PARTS
        return seconds

    found = alternate({"plain": save_plain, "ours": save_ours, "verify": verify_ours}, repeats)
    parts = {f"{name}, s": seconds for name, seconds in found.items()}
    blocked = alternate({"copy": copy, "blocked": save_behind}, repeats)
    blocked_parts = {f"{name}, s": seconds for name, seconds in blocked.items()}
    over_copy = ratios(blocked["blocked"], blocked["copy"])
    what = f"a checkpoint of {size / 1e6:.0f} MB"
    return [
        Row(
            "P9", f"{what}, ours over torch.save and fsync", "x", ratios(found["ours"], found["plain"]), Bar(1.5), parts
        ),
        Row("P9", f"{what}, training blocked by an async save over a copy", "x", over_copy, Bar(1.25), blocked_parts),
        Row("P9", f"{what}, found whole by its manifest", "s", found["verify"]),
    ]
