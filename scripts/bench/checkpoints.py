"""P9: measure saving a checkpoint atomically, in the foreground and in the background, and verifying it."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from time import perf_counter

import torch

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.manifest import verify
from scripts.bench.measure import Row, Threshold, measure_in_turns, ratios

NUM_TENSORS = 20  # tensors


def checkpoint_rows(folder: Path, size: int, repeats: int) -> list[Row]:
    """Measure a verified save against `torch.save` with fsync.

    Both write a new file and keep two older ones. Overwriting a file in place is faster, because its pages are in
    memory, but a kill would destroy the checkpoint.

    Args:
        folder: For the files; the benchmark measures its disk.
        size: Bytes of a checkpoint.
        repeats: Number of measured rounds.
    """
    tensors = {f"part{number}": torch.randn(size // 4 // NUM_TENSORS) for number in range(NUM_TENSORS)}
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

    async_io = AsyncVerifiedCheckpointIO()

    def save_async() -> float:
        start = perf_counter()
        async_io.save_checkpoint(checkpoint, folder / "behind.ckpt")
        seconds = perf_counter() - start
        async_io.finish()
        return seconds

    def copy() -> float:
        start = perf_counter()
        copies = [tensor.clone() for tensor in tensors.values()]
        seconds = perf_counter() - start
        assert len(copies) == NUM_TENSORS
        return seconds

    found = measure_in_turns({"plain": save_plain, "ours": save_ours, "verify": verify_ours}, repeats)
    parts = {f"{name}, s": seconds for name, seconds in found.items()}
    blocked = measure_in_turns({"copy": copy, "blocked": save_async}, repeats)
    blocked_parts = {f"{name}, s": seconds for name, seconds in blocked.items()}
    over_copy = ratios(blocked["blocked"], blocked["copy"])
    what = f"a checkpoint of {size / 1e6:.0f} MB"
    return [
        Row(
            "P9",
            f"{what}, ours over torch.save and fsync",
            "x",
            ratios(found["ours"], found["plain"]),
            Threshold(1.5),
            parts,
        ),
        Row(
            "P9",
            f"{what}, training blocked by an async save over a copy",
            "x",
            over_copy,
            Threshold(1.25),
            blocked_parts,
        ),
        Row("P9", f"{what}, verified against its manifest", "s", found["verify"]),
    ]
