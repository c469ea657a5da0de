"""MNIST, Fashion-MNIST and the MNIST sample as one data module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fulgurite.core.errors import ConfigError, UserError, suggest_or_list
from fulgurite.data import device_batch_size, fold_findings, prepare_idx, split_fold, stratified_split
from src.data.batches import ArrayStore, Augment, Batch, ImageSet, identity_collate
from src.data.mnist_files import DATASETS, IMAGE_SHAPE, SAMPLE, read_idx, read_sample

NUM_CLASSES = 10


class MNISTDataModule(LightningDataModule):
    """One data set of the MNIST family, split into train, val and test, in whole batches.

    A batch is `(images [B, 1, 28, 28] float32 normalised, labels [B] int64)`.

    Args:
        name: The data set. The sample is split in three, the others have a test set of their own.
        data_dir: Folder of the prepared files. The sample is only read there.
        num_classes: Classes that a model distinguishes; labels are 0 to 9.
        val_size: Validation images, the same fraction of each class. None is 5,000, or 500 of the sample.
        test_size: Test images of the sample. None is 500; no other data set accepts a value.
        split_seed: Seed of the split and of the folds.
        fold: The fold that is held out for validation, 0 to `num_folds - 1`. None splits once.
        num_folds: Folds of all images but the test images.
        batch_size: Global batch size. It must be divisible by the number of data-parallel ranks.
        local_dirs: Folders that are searched before a download.
        num_workers: DataLoader workers. 0 loads in the training process.
        pin_memory: Page-locked batches, for faster copies to a GPU.
        augment: Batched transform of the normalised training images, [B, 1, 28, 28] to the same. None applies nothing.

    Raises:
        ConfigError: Arguments are invalid; all of them are reported.
    """

    shape = IMAGE_SHAPE
    train_set: ImageSet
    val_set: ImageSet
    test_set: ImageSet

    def __init__(
        self,
        name: Literal["mnist_sample", "mnist", "fashion_mnist"],
        data_dir: str,
        *,
        num_classes: int = NUM_CLASSES,
        val_size: int | None = None,
        test_size: int | None = None,
        split_seed: int = 42,
        fold: int | None = None,
        num_folds: int | None = None,
        batch_size: int = 128,
        local_dirs: Sequence[str] = (),
        num_workers: int = 0,
        pin_memory: bool = False,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        if name not in DATASETS:
            raise UserError(f"data.name={name}: no such data set{suggest_or_list(name, DATASETS, 'The data sets are')}")
        self.name, self.info = name, DATASETS[name]
        self.data_dir = Path(data_dir).expanduser()
        self.local_dirs = [Path(folder).expanduser() for folder in local_dirs]
        self.num_classes = num_classes
        has_test_files = bool(self.info.files)
        self.val_size = (5_000 if has_test_files else 500) if val_size is None else val_size
        self.test_size = 500 if test_size is None and not has_test_files else test_size
        self.split_seed = split_seed
        self.fold, self.num_folds = fold, num_folds
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.augment = augment
        if findings := self._find_invalid() + fold_findings(fold, num_folds, val_size):
            raise ConfigError(findings)

    def _find_invalid(self) -> list[str]:
        """Return one line per invalid argument."""
        least = {"num_classes": NUM_CLASSES, "val_size": 1, "batch_size": 1, "num_workers": 0, "split_seed": 0}
        if not self.info.files:
            least["test_size"] = 1
        values = {key: getattr(self, key) for key in least}
        wrong = {key: value for key, value in values.items() if not isinstance(value, int) or value < least[key]}
        findings = [f"data.{key}={value}: must be a whole number, {least[key]} or more" for key, value in wrong.items()]
        if self.info.files and self.test_size is not None:
            findings.append(f"data.test_size={self.test_size}: {self.name} has a test set of its own. Remove the key.")
        elif not wrong and (self.fold is None or self.test_size):
            held_out, key = self.val_size + (self.test_size or 0), "data.val_size"
            if held_out >= self.info.num_train:
                key += "" if self.test_size is None else " + data.test_size"
                findings.append(f"{key}={held_out}: no image is left to train on. Use less than {self.info.num_train}.")
        return findings

    def prepare_data(self) -> None:
        """Download and check the files, once per machine; returns at once if they are there."""
        if self.info.files:
            prepare_idx(self.data_dir, self.info.files, self.info.mirrors, self.local_dirs)
        else:
            read_sample(self.data_dir / SAMPLE)

    def setup(self, stage: str | None = None) -> None:
        """Map the files into memory and split them, the same for every `stage` and on every rank."""
        device_batch_size(self.batch_size, self.trainer)
        if hasattr(self, "test_set"):
            return
        if self.info.files:
            paths = [self.data_dir / file.name for file in self.info.files]
            train, test = ArrayStore(partial(read_idx, *paths[:2])), ArrayStore(partial(read_idx, *paths[2:]))
            val_rows, train_rows = stratified_split(train.labels, [self.val_size], self.split_seed)
            test_rows = torch.arange(len(test.labels))
        else:
            train = test = ArrayStore(partial(read_sample, self.data_dir / SAMPLE))
            sizes = [self.val_size, self.test_size or 0]
            val_rows, test_rows, train_rows = stratified_split(train.labels, sizes, self.split_seed)
        if self.fold is not None:  # the test images are the same with and without folds
            rows = torch.cat([train_rows, val_rows])
            train_rows, val_rows = split_fold(train.labels, self.fold, self.num_folds, self.split_seed, rows)
        make_set = partial(ImageSet, mean=self.info.mean, std=self.info.std)
        self.train_set = make_set(train, train_rows, augment=self.augment)
        self.val_set, self.test_set = make_set(train, val_rows), make_set(test, test_rows)

    def _loader(self, images: ImageSet, *, shuffle: bool = False) -> DataLoader[Batch]:
        return DataLoader(
            images,
            batch_size=device_batch_size(self.batch_size, self.trainer),
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            collate_fn=identity_collate,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches, in a new order each epoch."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, always in the same order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, always in the same order."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches."""
        return self.test_dataloader()
