"""A small random data set in the files and with the checksums of MNIST."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fulgurite.data import IdxFile, prepare_idx

if TYPE_CHECKING:
    from src.data.mnist_files import DatasetInfo

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array: np.ndarray) -> bytes:
    """Return a uint8 array as the content of an IDX file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def tiny_arrays(num_train: int = 200, num_test: int = 50) -> dict[str, np.ndarray]:
    """Return random images [N, 28, 28] and labels [N], both uint8, by the names of the four files."""
    rng = np.random.default_rng(0)
    shapes = [(num_train, 28, 28), (num_train,), (num_test, 28, 28), (num_test,)]
    return {
        name: rng.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        for name, shape in zip(NAMES, shapes, strict=True)
    }


def tiny_files(num_train: int = 200, num_test: int = 50) -> tuple[tuple[IdxFile, ...], dict[str, bytes]]:
    """Return the checksums of `tiny_arrays`, and the published files as `{name.gz: content}`."""
    contents = {name: idx_bytes(array) for name, array in tiny_arrays(num_train, num_test).items()}
    packed = {name: gzip.compress(content, compresslevel=1, mtime=0) for name, content in contents.items()}
    files = tuple(
        IdxFile(name, hashlib.sha256(contents[name]).hexdigest(), hashlib.sha256(packed[name]).hexdigest())
        for name in NAMES
    )
    return files, {f"{name}.gz": content for name, content in packed.items()}


def tiny_dataset(*mirrors: str, num_train: int = 200, num_test: int = 50) -> tuple[DatasetInfo, dict[str, bytes]]:
    """Return the facts about `tiny_files`, and the published files."""
    from src.data.mnist_files import DatasetInfo  # imports torch, which a process that only prepares does not need

    files, packed = tiny_files(num_train, num_test)
    return DatasetInfo(mean=0.5, std=0.25, num_train=num_train, files=files, mirrors=mirrors), packed


def prepare_tiny(folder: Path, mirror: str) -> None:
    """Prepare `tiny_files` from a mirror."""
    prepare_idx(folder, tiny_files()[0], [mirror])
