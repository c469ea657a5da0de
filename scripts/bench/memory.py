"""P6: measure the memory of the data pipeline in a separate process.

The arrays are sparse IDX files of zeros: they use no disk space, but their full size in memory.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

from scripts.bench.measure import Row, Threshold, resident_bytes, run_child

SIDE = 28  # pixels
TEST_IMAGES = 1_000
FILE_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SAMPLE_INTERVAL = 50  # batches


def write_arrays(folder: Path, images: int) -> int:
    """Write a data set in MNIST's file format and return the bytes of its arrays.

    Args:
        folder: For the four files.
        images: Training images; the test set has a thousand.
    """
    shapes = [(images, SIDE, SIDE), (images,), (TEST_IMAGES, SIDE, SIDE), (TEST_IMAGES,)]
    for name, shape in zip(FILE_NAMES, shapes, strict=True):
        with (folder / name).open("wb") as file:
            file.write(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
            file.truncate(file.tell() + math.prod(shape))
    return sum(math.prod(shape) for shape in shapes)


def sample_memory(folder: Path) -> list[dict[str, int]]:
    """Read every batch through the data module and return the memory above the start.

    Args:
        folder: Holds the files.

    Returns:
        Resident bytes `all`, `own` and `mapped`, after each fifty batches.
    """
    from src.data.mnist import MNISTDataModule

    _warm_up(folder)
    start = resident_bytes()
    samples = []
    data = MNISTDataModule("fashion_mnist", str(folder), val_size=5_000)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for number, _ in enumerate(loader):
            if number % SAMPLE_INTERVAL == 0:
                samples.append({kind: size - start[kind] for kind, size in resident_bytes().items()})
    return samples


def _warm_up(folder: Path) -> None:
    """Start threads and lazy imports of torch on a small data set."""
    from src.data.mnist import MNISTDataModule

    small = folder / "small"
    small.mkdir(exist_ok=True)
    write_arrays(small, 10_000)
    data = MNISTDataModule("fashion_mnist", str(small), val_size=5_000)
    data.setup()
    for _ in data.train_dataloader():
        pass


def memory_rows(folder: Path, images: int, large: int) -> list[Row]:
    """Measure the pipeline on a data set of usual size and on one too large to copy.

    Args:
        folder: For the files.
        images: Training images of the usual set.
        large: Training images of the large set.
    """
    size, samples = _measure(folder / "usual", images)
    peak = max(sample["all"] for sample in samples)
    parts = {"arrays, MiB": [size / 2**20], "resident, MiB": [peak / 2**20]}
    usual = Row("P6", f"{images:,} images, resident memory over the arrays", "x", [peak / size], Threshold(1.2), parts)

    size, samples = _measure(folder / "large", large)
    own = [sample["own"] / 2**20 for sample in samples]
    settled = own[len(own) // 10 :]
    parts = {"arrays, MiB": [size / 2**20], "own memory, MiB": settled, "mapped, MiB": [samples[-1]["mapped"] / 2**20]}
    what = f"{size / 2**30:.2f} GiB mapped, growth of own memory from a tenth of the epoch to its end"
    return [usual, Row("P6", what, "MiB", [max(settled) - settled[0]], Threshold(8.0), parts)]


def _measure(folder: Path, images: int) -> tuple[int, list[dict[str, int]]]:
    folder.mkdir()
    size = write_arrays(folder, images)
    child = run_child([sys.executable, "-m", "scripts.bench.memory", str(folder)])
    if child.exit_code:
        raise SystemExit(f"the measurement failed:\n{child.err[-2000:]}")
    samples: list[dict[str, int]] = json.loads(child.out)
    return size, samples


if __name__ == "__main__":
    print(json.dumps(sample_memory(Path(sys.argv[1]))))
