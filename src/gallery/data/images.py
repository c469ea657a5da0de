"""Images of the MNIST family as the book uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch.nn.functional import interpolate

from src.data.batches import Augment, ImageSet
from src.data.mnist import MNISTDataModule


class BookImages(MNISTDataModule):
    """Pixels between 0 and 1, at any size; trained on all training images and validated on the test images.

    The book has no validation images: it prints the accuracy on the test images after each epoch. So `val/acc` of the
    last epoch is the book's number, and `test/acc` of the checkpoint with the best `val/acc` is too high by that
    choice. The MNIST sample keeps its own split in three.

    A batch is `(images [B, 1, image_size, image_size] float32, labels [B] int64)`.

    Args:
        name: The data set.
        data_dir: Folder of the prepared files.
        image_size: Height and width in pixels. The images, which have 28, are resized a batch at a time, on the device.
        batch_size: Global batch size. It must be divisible by the number of data-parallel ranks.
        local_dirs: Folders that are searched before a download.
        num_classes: Classes that a model distinguishes.
        num_workers: DataLoader workers.
        pin_memory: Page-locked batches, for faster copies to a GPU.
        augment: Batched transform of the training images, before they are resized.
    """

    def __init__(
        self,
        name: Literal["fashion_mnist", "mnist", "mnist_sample"],
        data_dir: str,
        *,
        image_size: int = 28,
        batch_size: int = 256,
        local_dirs: Sequence[str] = (),
        num_classes: int = 10,
        num_workers: int = 0,
        pin_memory: bool = False,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(
            name,
            data_dir,
            num_classes=num_classes,
            batch_size=batch_size,
            local_dirs=local_dirs,
            num_workers=num_workers,
            pin_memory=pin_memory,
            augment=augment,
        )
        self.info = replace(self.info, mean=0.0, std=1.0)
        self.image_size = image_size

    def setup(self, stage: str | None = None) -> None:
        """Map the files into memory, the same for every `stage` and on every rank."""
        if hasattr(self, "test_set"):
            return
        super().setup(stage)
        if self.info.files:
            train = self.train_set
            rows = torch.arange(len(train.store.labels))
            self.train_set = ImageSet(train.store, rows, mean=0.0, std=1.0, augment=self.augment)
            self.val_set = self.test_set

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Resize the images of a batch that is on its device."""
        images, labels = batch
        if images.shape[-1] != self.image_size:
            images = interpolate(images, size=self.image_size, mode="bilinear", align_corners=False)
        return images, labels
