"""The baseline: a Lightning run as other templates configure it.

Each image becomes a PIL image and passes a chain of transforms on its own. The training process collates batches from
lists of examples. The module calls and logs metric objects at every step. The callbacks are those of a default run:
best and last checkpoint, early stopping, model summary and a Rich progress bar.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichModelSummary, RichProgressBar
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from scripts.bench.images import BATCH_SIZE

Arrays = tuple[Tensor, Tensor]  # pixels [N, 28, 28] uint8, labels [N] int64
MEAN, STD = (0.1307,), (0.3081,)


def train_epoch(net: nn.Module, train: Arrays, val: Arrays, folder: Path) -> dict[str, float]:
    """Train a net for one shuffled epoch, validate it, and return the logged metrics.

    Args:
        net: Maps images to scores; trained in place.
        train: Pixels and labels to train on.
        val: Pixels and labels to validate on.
        folder: For the checkpoints.
    """
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        callbacks=[
            ModelCheckpoint(dirpath=folder, monitor="val/acc", mode="max", save_last=True),
            EarlyStopping(monitor="val/acc", patience=100, mode="max"),
            RichModelSummary(max_depth=-1),
            RichProgressBar(),
        ],
    )
    train_loader, val_loader = (
        DataLoader(_split(*arrays), batch_size=BATCH_SIZE, num_workers=0, shuffle=shuffle)
        for arrays, shuffle in ((train, True), (val, False))
    )
    with redirect_stdout(io.StringIO()):
        trainer.fit(LogEveryStepClassifier(net), train_loader, val_loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _split(pixels: Tensor, labels: Tensor) -> Subset[tuple[Tensor, int]]:
    """Return a shuffled subset of a concatenated data set, as such templates split it."""
    half = len(labels) // 2
    joined: ConcatDataset[tuple[Tensor, int]] = ConcatDataset(
        [PerSampleDataset(pixels[:half], labels[:half]), PerSampleDataset(pixels[half:], labels[half:])]
    )
    return Subset(joined, torch.randperm(len(labels)).tolist())


class PerSampleDataset(Dataset[tuple[Tensor, int]]):
    """A data set that reads one image at a time through PIL, as normalised [1, 28, 28] float32.

    Args:
        pixels: [N, 28, 28] uint8.
        labels: [N] int64.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels
        self.transforms: list[Callable[[Any], Any]] = [ToTensor(), Normalize(MEAN, STD)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels, label = self.pixels[index], int(self.labels[index])
        example: Any = Image.fromarray(pixels.numpy())
        for transform in self.transforms:
            example = transform(example)
        return example, label


class ToTensor:
    """A transform from a greyscale PIL image to [1, H, W] float32, 0 to 1."""

    def __call__(self, picture: object) -> Tensor:
        """Return the tensor."""
        _count_use("ToTensor")
        if not isinstance(picture, Image.Image) or picture.mode != "L":
            raise TypeError(f"{type(picture).__name__}: not a greyscale PIL image")
        wanted = torch.get_default_dtype()
        values = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        values = values.view(picture.size[1], picture.size[0], len(picture.getbands()))
        values = values.permute((2, 0, 1)).contiguous()
        return values.to(dtype=wanted).div(255) if values.dtype == torch.uint8 else values


class Normalize(nn.Module):
    """The transform `(image - mean) / std` of one image [C, H, W] for each channel.

    Args:
        mean: One value a channel.
        std: One value a channel, not 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, image: Tensor) -> Tensor:
        """Return a normalised copy."""
        _count_use("Normalise")
        if not image.is_floating_point() or image.ndim < 3:
            raise TypeError(f"{image.dtype} of {image.ndim} axes: not an image of floats")
        image = image.clone()
        mean = torch.as_tensor(self.mean, dtype=image.dtype, device=image.device)
        std = torch.as_tensor(self.std, dtype=image.dtype, device=image.device)
        if (std == 0).any():
            raise ValueError("a standard deviation is 0")
        return image.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def _count_use(name: str) -> None:
    """Report the use of an operation to torch, as torchvision's transforms do for every image."""
    torch._C._log_api_usage_once(name)


class LogEveryStepClassifier(LightningModule):
    """A classifier that calls and logs metric objects at every step.

    Args:
        net: Maps images [B, 1, 28, 28] to scores [B, 10].
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_acc, self.val_acc = (MulticlassAccuracy(num_classes=10, average="micro") for _ in range(2))
        self.val_acc_best = MaxMetric()

    def _step(self, batch: Arrays) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = batch
        scores = self.net(images)
        return nn.functional.cross_entropy(scores, labels), scores.argmax(dim=1), labels

    def training_step(self, batch: Arrays, batch_idx: int) -> Tensor:
        """Return the loss, and log loss and accuracy so far."""
        loss, predicted, labels = self._step(batch)
        self.train_loss(loss)
        self.train_acc(predicted, labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Arrays, batch_idx: int) -> None:
        """Log loss and accuracy so far."""
        loss, predicted, labels = self._step(batch)
        self.val_loss(loss)
        self.val_acc(predicted, labels)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the best accuracy so far."""
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with torch's defaults."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=0.0)
