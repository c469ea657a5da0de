"""MNIST, Fashion-MNIST and the MNIST sample of this repository: what the files are, and how they are read."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fulgurite.core.errors import UserError
from fulgurite.data import IdxFile, map_idx

IMAGE_SHAPE = (1, 28, 28)  # channels, height, width
SAMPLE = "mnist_5k.npz"


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about one data set.

    Args:
        mean: Mean of the training pixels, in units of the full range 0 to 1.
        std: Standard deviation of the training pixels, in the same units.
        num_train: Images that are split into train and val, and test if there are no test files.
        files: Training images and labels, then test images and labels. Empty for the sample.
        mirrors: Base URLs of the files, each with its trailing slash.
    """

    mean: float
    std: float
    num_train: int
    files: tuple[IdxFile, ...] = ()
    mirrors: tuple[str, ...] = ()


def read_idx(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """Map images [N, 28, 28] and labels [N] into memory, both uint8.

    Raises:
        UserError: A file is missing or damaged, or the two have different lengths.
    """
    pixels, classes = map_idx(images), map_idx(labels)
    if pixels.shape != (len(classes), *IMAGE_SHAPE[1:]) or classes.ndim != 1:
        raise UserError(
            f"{images}: {tuple(pixels.shape)} images do not match {tuple(classes.shape)} labels of {labels.name}. "
            "Delete both files, the next run makes them again."
        )
    return pixels, classes


def read_sample(path: Path) -> tuple[Tensor, Tensor]:
    """Read the sample's images [N, 28, 28] and labels [N], both uint8.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        # a file opened by numpy stays open if numpy cannot read it
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "the file is missing" if isinstance(error, FileNotFoundError) else f"the file is damaged ({error})"
        raise UserError(f"{path}: {reason}. Restore it with: git checkout -- data/mnist_sample") from error


DATASETS: dict[str, DatasetInfo] = {
    "mnist_sample": DatasetInfo(mean=0.1307, std=0.3081, num_train=5_000),
    "mnist": DatasetInfo(
        mean=0.1307,
        std=0.3081,
        num_train=60_000,
        files=(
            IdxFile(
                "train-images-idx3-ubyte",
                sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                gz_sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            IdxFile(
                "train-labels-idx1-ubyte",
                sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                gz_sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            IdxFile(
                "t10k-images-idx3-ubyte",
                sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                gz_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            IdxFile(
                "t10k-labels-idx1-ubyte",
                sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                gz_sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion_mnist": DatasetInfo(
        mean=0.2860,
        std=0.3530,
        num_train=60_000,
        files=(
            IdxFile(
                "train-images-idx3-ubyte",
                sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                gz_sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            IdxFile(
                "train-labels-idx1-ubyte",
                sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                gz_sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            IdxFile(
                "t10k-images-idx3-ubyte",
                sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                gz_sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            IdxFile(
                "t10k-labels-idx1-ubyte",
                sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                gz_sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        mirrors=(
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
    ),
}
