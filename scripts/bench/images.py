"""The images that every way of training is measured on: the same ones, in the same number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from src.data.batches import ImageSet
from src.data.mnist import MNISTDataModule

INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
BATCH_SIZE = 128


@dataclass(frozen=True)
class Size:
    """How many images an epoch trains on and validates on."""

    train: int
    val: int


FULL = Size(train=55_000, val=5_000)
QUICK = Size(train=2_560, val=256)


def overrides(size: Size) -> list[str]:
    """Return the overrides that choose the data: Fashion-MNIST where it is installed, else the sample."""
    whole = size == FULL and INSTALLED.is_dir()
    return [f"data={'fashion_mnist' if whole else 'mnist_sample'}", f"data.batch_size={BATCH_SIZE}"]


def resize(datamodule: MNISTDataModule, size: Size) -> None:
    """Give the data module's sets this many images: the first ones, and the same again where there are too few."""
    datamodule.prepare_data()
    datamodule.setup()
    for images, wanted in ((datamodule.train_set, size.train), (datamodule.val_set, size.val)):
        images.rows = images.rows[torch.arange(wanted) % len(images.rows)]


def raw(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return a set's pixels [N, 28, 28] uint8 and labels [N] int64, in memory of their own."""
    return images.store.images[images.rows], images.store.labels[images.rows].to(torch.int64)


def normalised(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return all of a set as one batch: images [N, 1, 28, 28] float32, labels [N] int64."""
    return images.__getitems__(cast("list[int]", torch.arange(len(images))))
