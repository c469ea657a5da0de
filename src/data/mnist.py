"""MNIST and what is made like it: 28x28 grey images in 10 classes, in IDX files or in the sample that lies here."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.core.errors import ConfigError, UserError, did_you_mean
from fulgurite.data.batch_size import device_batch_size
from fulgurite.data.folds import fold_findings, split_fold
from fulgurite.data.idx import IdxFile, map_idx, prepare_idx
from fulgurite.data.splits import stratified_split
from src.data.batches import ArrayStore, Augment, Batch, ImageSet, identity_collate

Name = Literal["mnist_sample", "mnist", "fashion_mnist"]
CLASSES = 10
SAMPLE = "mnist_5k.npz"


@dataclass(frozen=True)
class Family:
    """What is known of one data set before it is read.

    Args:
        mean: Mean of its training pixels, in units of the full range 0 to 1.
        std: Their standard deviation, in the same units.
        num_train: Images that are cut into train and val (and test, where it has none of its own).
        files: Training images and labels, then test images and labels; none for the sample.
        mirrors: Where the files are published, https, each with its trailing slash.
    """

    mean: float
    std: float
    num_train: int
    files: tuple[IdxFile, ...] = ()
    mirrors: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "mnist_sample": Family(mean=0.1307, std=0.3081, num_train=5_000),
    "mnist": Family(
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
    "fashion_mnist": Family(
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


class MNISTDataModule(LightningDataModule):
    """One data set of the family, cut into train, val and test, in whole batches.

    A batch is `(images [B, 1, 28, 28] float32 normalised, labels [B] int64)`.

    Args:
        name: Which data set. The sample is cut in three; the others keep their own test set.
        data_dir: Folder of the prepared files; the sample is only read there.
        num_classes: Classes a model must tell apart; labels are 0 to 9.
        val_size: Images held out from training for validation, the same share of each class; None means 5,000, of the
            sample 500.
        test_size: Images held out for the test; the sample only, None means 500.
        split_seed: Another seed is another cut.
        fold: Cross-validation: the one of `num_folds` equal parts that is held out for validation; None cuts once.
        num_folds: Parts that all images but those of the test are cut into.
        batch_size: Images a batch over all processes together; it must divide over them.
        local_dirs: Folders looked in before anything is downloaded.
        num_workers: Processes that load batches; 0 loads in the training process.
        pin_memory: Page-locked batches, for faster copies to a GPU.
        augment: Batched change of the normalised training images, [B, 1, 28, 28] to the same; None changes nothing.

    Raises:
        ConfigError: Arguments that cannot be right, all told together.
    """

    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)  # channels, height, width

    train_set: ImageSet
    val_set: ImageSet
    test_set: ImageSet

    def __init__(
        self,
        name: Name,
        data_dir: str,
        *,
        num_classes: int = CLASSES,
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
        if name not in FAMILIES:
            known = get_args(Name)
            raise UserError(
                f"data.name={name}: no such data set, known are {', '.join(known)}{did_you_mean(name, known)}"
            )
        self.name = name
        self.family = FAMILIES[name]
        self.data_dir = Path(data_dir).expanduser()
        self.local_dirs = [Path(folder).expanduser() for folder in local_dirs]
        self.num_classes = num_classes
        sample = name == "mnist_sample"
        self.val_size = (500 if sample else 5_000) if val_size is None else val_size
        self.test_size = 500 if test_size is None and sample else test_size
        self.split_seed = split_seed
        self.fold, self.num_folds = fold, num_folds
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.augment = augment
        if findings := self._findings() + fold_findings(fold, num_folds, val_size):
            raise ConfigError(findings)

    def _findings(self) -> list[str]:
        least = {"num_classes": CLASSES, "val_size": 1, "batch_size": 1, "num_workers": 0, "split_seed": 0}
        if self.name == "mnist_sample":
            least["test_size"] = 1
        wrong = {key: value for key in least if not isinstance(value := getattr(self, key), int) or value < least[key]}
        findings = [f"data.{key}={value}: must be a whole number, {least[key]} or more" for key, value in wrong.items()]
        if self.test_size is not None and self.name != "mnist_sample":
            findings.append(f"data.test_size={self.test_size}: {self.name} has a test set of its own; remove the key")
        elif not wrong and (self.fold is None or self.test_size):
            held_out, images = self.val_size + (self.test_size or 0), self.family.num_train
            if held_out >= images:
                key = "data.val_size" if self.test_size is None else "data.val_size + data.test_size"
                findings.append(f"{key} = {held_out}: leaves nothing to train on; hold out less than {images} images")
        return findings

    def prepare_data(self) -> None:
        """Make the files be there, once a machine; finds in a moment that they are."""
        if self.family.files:
            prepare_idx(self.data_dir, self.family.files, self.family.mirrors, self.local_dirs)
        else:
            read_sample(self.data_dir / SAMPLE)

    def setup(self, stage: str | None = None) -> None:
        """Map the files and cut them, in every process, the same for every `stage`."""
        device_batch_size(self.batch_size, self.trainer)
        if hasattr(self, "test_set"):
            return
        if self.family.files:
            train, test = (ArrayStore(partial(read_idx, images, labels)) for images, labels in self._paths())
            val_rows, train_rows = stratified_split(train.labels, [self.val_size], self.split_seed)
            test_rows = torch.arange(len(test.labels))
        else:
            train = test = ArrayStore(partial(read_sample, self.data_dir / SAMPLE))
            sizes = [self.val_size, self.test_size or 0]
            val_rows, test_rows, train_rows = stratified_split(train.labels, sizes, self.split_seed)
        if self.fold is not None:  # the images of the test are those of the cut without folds
            rows = torch.cat([train_rows, val_rows])
            train_rows, val_rows = split_fold(train.labels, self.fold, self.num_folds, self.split_seed, rows)
        make = partial(ImageSet, mean=self.family.mean, std=self.family.std)
        self.train_set = make(train, train_rows, augment=self.augment)
        self.val_set, self.test_set = make(train, val_rows), make(test, test_rows)

    def _paths(self) -> list[tuple[Path, Path]]:
        paths = [self.data_dir / file.name for file in self.family.files]
        return [(paths[0], paths[1]), (paths[2], paths[3])]

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
        """Return the training batches, in another order each epoch."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches, always in the same order."""
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches, always in the same order."""
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches: they are what predictions are shown for."""
        return self.test_dataloader()


def read_idx(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """Map images [N, 28, 28] and labels [N], both uint8.

    Raises:
        UserError: A file is missing or broken, or the two do not belong together.
    """
    pixels, classes = map_idx(images), map_idx(labels)
    if pixels.shape != (len(classes), *MNISTDataModule.shape[1:]) or classes.ndim != 1:
        raise UserError(
            f"{images}: {tuple(pixels.shape)} images do not go with {tuple(classes.shape)} labels of {labels.name}; "
            "delete both to have them made again"
        )
    return pixels, classes


def read_sample(path: Path) -> tuple[Tensor, Tensor]:
    """Read the sample's images [N, 28, 28] and labels [N], both uint8.

    Raises:
        UserError: The file is missing or broken.
    """
    try:
        # opened here, since numpy leaves a file open that it cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else f"not the sample it should be ({error})"
        raise UserError(f"{path}: {reason}; restore it with: git checkout -- data/mnist_sample") from error
