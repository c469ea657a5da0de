"""P6: what the data pipeline keeps in memory, measured in a process of its own; and the arrays it is measured on.

The arrays are IDX files of zeros with holes for content: they take no space on the disk, and all their space when read.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

from scripts.bench.measure import Bar, Row, resident, run_child

SIDE = 28  # pixels
TEST_IMAGES = 1_000
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LOOK_EVERY = 50  # batches


def write_arrays(folder: Path, images: int) -> int:
    """Write a data set in the files of MNIST's family and return the bytes of its arrays.

    Args:
        folder: Where the four files go.
        images: Training images; the test set has a thousand.
    """
    shapes = [(images, SIDE, SIDE), (images,), (TEST_IMAGES, SIDE, SIDE), (TEST_IMAGES,)]
    for name, shape in zip(NAMES, shapes, strict=True):
        with (folder / name).open("wb") as file:
            file.write(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
            file.truncate(file.tell() + math.prod(shape))
    return sum(math.prod(shape) for shape in shapes)


def read_epoch(folder: Path) -> list[dict[str, int]]:
    """Read every batch of a data set through the data module and return the memory it took beyond the start.

    Args:
        folder: Holds the files.

    Returns:
        Resident bytes `all`, `own` and `mapped`, after each fifty batches.
    """
    from src.data.mnist import MNISTDataModule

    _warm_up(folder)
    start = resident()
    looks = []
    data = MNISTDataModule("fashion_mnist", str(folder), val_size=5_000)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for number, _ in enumerate(loader):
            if number % LOOK_EVERY == 0:
                looks.append({kind: size - start[kind] for kind, size in resident().items()})
    return looks


def _warm_up(folder: Path) -> None:
    """Start what any use of torch starts once (threads, lazy imports), on a data set of a few images."""
    from src.data.mnist import MNISTDataModule

    small = folder / "small"
    small.mkdir(exist_ok=True)
    write_arrays(small, 10_000)
    data = MNISTDataModule("fashion_mnist", str(small), val_size=5_000)
    data.setup()
    for _ in data.train_dataloader():
        pass


def memory_rows(folder: Path, images: int, large: int) -> list[Row]:
    """Measure the pipeline on a set of the usual size, and on one that is too large to copy.

    Args:
        folder: For the files.
        images: Training images of the usual set.
        large: Training images of the large set.
    """
    size, looks = _measure(folder / "usual", images)
    peak = max(look["all"] for look in looks)
    parts = {"arrays, MiB": [size / 2**20], "resident, MiB": [peak / 2**20]}
    usual = Row("P6", f"{images:,} images, resident memory over the arrays", "x", [peak / size], Bar(1.2), parts)

    size, looks = _measure(folder / "large", large)
    own = [look["own"] / 2**20 for look in looks]
    settled = own[len(own) // 10 :]
    parts = {"arrays, MiB": [size / 2**20], "own memory, MiB": settled, "mapped, MiB": [looks[-1]["mapped"] / 2**20]}
    what = f"{size / 2**30:.2f} GiB mapped, growth of own memory from a tenth of the epoch to its end"
    return [usual, Row("P6", what, "MiB", [max(settled) - settled[0]], Bar(8.0), parts)]


def _measure(folder: Path, images: int) -> tuple[int, list[dict[str, int]]]:
    folder.mkdir()
    size = write_arrays(folder, images)
    child = run_child([sys.executable, "-m", "scripts.bench.memory", str(folder)])
    if child.exit_code:
        raise SystemExit(f"the pipeline could not be measured:\n{child.err[-2000:]}")
    looks: list[dict[str, int]] = json.loads(child.out)
    return size, looks


if __name__ == "__main__":
    print(json.dumps(read_epoch(Path(sys.argv[1]))))
