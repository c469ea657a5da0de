"""State inside of what loaders get: data sets in data sets, shared generators and numbers, partials, files."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset

from tests.support.shapes.hidden import Counting
from tests.support.shapes.loaders import ROWS, Data, Points, jitter
from tests.support.shapes.shape import Shape, use

ATTRIBUTES = "state in attributes"


class Inside(Dataset[Any]):
    """Another data set, under a name of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> Any:
        return self.inner[i]


class Brightens(nn.Module):
    """An augmentation that grows with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * (1 + self.calls / 100)


class Scaled(Points):
    """Examples times what is shared with others."""

    def __init__(self, shared: Any) -> None:
        super().__init__(noise=0.0)
        self.shared = shared

    def __getitem__(self, i: int) -> Any:
        return self.x[i] * (1 + self._factor(i)), self.y[i], i

    def _factor(self, i: int) -> float:
        if isinstance(self.shared, nn.Module):
            return float(self.shared(torch.ones(1)))
        if isinstance(self.shared, np.random.Generator):
            return float(self.shared.normal())
        if isinstance(self.shared, torch.Generator):
            return float(torch.rand(1, generator=self.shared))
        if isinstance(self.shared, set):
            self.shared.add(i)
            return len(self.shared) / 100
        if hasattr(self.shared, "value"):
            self.shared.value += 1
            return float(self.shared.value) / 100
        self.shared[i] += 1
        return float(self.shared[i]) / 100


class Labels(Points):
    """Examples whose labels are in a file."""

    def __init__(self, labels: np.ndarray[Any, Any]) -> None:
        super().__init__(noise=0.0)
        self.labels = labels

    def __getitem__(self, i: int) -> Any:
        return self.x[i], int(self.labels[i]), i


class Growing:
    """A batch sampler without a length, whose batches grow with a count."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[list[int]]:
        left = torch.randperm(ROWS).tolist()
        while left:
            size = 2 + self.drawn // 16
            self.drawn += 1
            yield left[:size]
            left = left[size:]


def counted(rows: list[Any], seen: dict[str, Any]) -> Any:
    seen["calls"] += 1
    x, y, i = jitter(rows)
    return x / seen["calls"] + float(seen["rng"].normal()), y, i


class Collates:
    def __init__(self) -> None:
        self.calls = 0

    def collate(self, rows: list[Any]) -> Any:
        self.calls += 1
        x, y, i = jitter(rows)
        return x / self.calls, y, i


MAKE: dict[str, Any] = {
    "numpy": lambda: np.random.default_rng(0),
    "torch": lambda: torch.Generator().manual_seed(0),
    "value": lambda: multiprocessing.Value("i", 0),
    "array": lambda: multiprocessing.Array("i", ROWS),
    "proxy": lambda: multiprocessing.Manager().list([0] * ROWS),
    "set": set,
    "module": Brightens,
}


class InnerData(Data):
    def __init__(self, kind: str, detail: str = "", num_workers: int = 0) -> None:
        super().__init__(kind, num_workers)
        self.detail = detail
        self.shared = MAKE[detail]() if detail in MAKE else None

    def train_dataloader(self) -> Any:
        return getattr(self, f"_{self.kind}")()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Draw from the generator that the data set has too."""
        if self.trainer is None or not self.trainer.training or not isinstance(self.shared, np.random.Generator):
            return batch
        return [batch[0] * float(self.shared.normal()), *batch[1:]]

    def _inside(self) -> Any:
        return self.load(Inside(Counting()), shuffle=True)

    def _shared(self) -> Any:
        return self.load(Scaled(self.shared), shuffle=True)

    def _partial(self) -> Any:
        seen = {"calls": 0, "rng": np.random.default_rng(1)}
        return self.load(Points(), shuffle=True, collate_fn=partial(counted, seen=seen))

    def _method(self) -> Any:
        return self.load(Points(), shuffle=True, collate_fn=Collates().collate)

    def _growing(self) -> Any:
        return DataLoader(Points(), batch_sampler=Growing(), **self.kw)

    def _file(self) -> Any:
        path = Path(tempfile.mkdtemp()) / "labels.npy"
        np.save(path, np.zeros(ROWS if not self.detail else 2_000_000, dtype=np.int64))
        return self.load(Labels(np.load(path, mmap_mode="r+")), shuffle=True)

    def _replaced(self) -> Any:
        self.points = getattr(self, "points", None) or Points()
        return self.load(self.points, shuffle=True)


class SplitData(Data):
    """A training and a validation set of the data module that are views of one tensor."""

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "train_set"):
            return
        whole = Points(ROWS + 24, noise=0.0)
        self.train_set, self.val_set = Points(ROWS), Points(24, noise=0.0)
        self.train_set.x, self.val_set.x = whole.x[:ROWS], whole.x[ROWS:]

    def train_dataloader(self) -> Any:
        return self.load(self.train_set, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.load(self.val_set)


class Relabel(Callback):
    """Writes labels into the file of the data set."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        labels = trainer.train_dataloader.dataset.labels  # type: ignore[union-attr]
        net: Any = pl_module.net
        labels[args[1][2].numpy()] = net(args[1][0]).argmax(1).numpy()


class Replace(Callback):
    """Gives the data module another data set after an epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.datamodule.points = Points(seed=trainer.current_epoch + 5)  # type: ignore[attr-defined]


def _data(text: str, kind: str, detail: str = "", *, workers: int = 0, line: str = "", **more: Any) -> Shape:
    data = use("inner.InnerData", kind=kind, detail=detail, num_workers=workers)
    expect: dict[str, Any] = {"expect": "named", "line": line} if line else {}
    return Shape(text + ", in workers" * bool(workers), ATTRIBUTES, data=data, **expect, **more)


INNER = [
    Shape("training and validation sets that are views of one tensor", ATTRIBUTES, data=use("inner.SplitData")),
    _data("a data set in an attribute of a data set: a counter", "inside"),
    _data("a data set in an attribute of a data set: a counter", "inside", workers=1, line="Counting.count"),
    _data("data set and data module share a NumPy generator", "shared", "numpy", workers=1),
    _data("data set: a torch.nn.Module that counts", "shared", "module"),
    _data("data set: a multiprocessing.Value", "shared", "value"),
    _data("data set: a multiprocessing.Value", "shared", "value", workers=1, line="Scaled.shared"),
    _data("data set: a multiprocessing.Array", "shared", "array", workers=1, line="Scaled.shared"),
    _data("data set: a list of a multiprocessing.Manager", "shared", "proxy", line="Scaled.shared"),
    _data("data set: a set", "shared", "set", workers=1, line="Scaled.shared"),
    _data("collate_fn: a partial with a counter and a generator", "partial"),
    _data("collate_fn: a partial with a counter", "partial", workers=1, line="partial(counted) seen"),
    _data("collate_fn: a method of an object that counts", "method"),
    _data("a batch sampler without __len__ whose batches grow", "growing"),
    _data("a batch sampler without __len__ whose batches grow", "growing", workers=2),
    _data("data set: a memory-mapped file that training writes", "file", callbacks={"relabel": use("inner.Relabel")}),
    _data(
        "data set: a memory-mapped file of 16 MB that training writes",
        "file",
        "large",
        callbacks={"relabel": use("inner.Relabel")},
        line="Labels.labels",
    ),
    _data(
        "a callback that replaces the data set of the data module",
        "replaced",
        callbacks={"replace": use("inner.Replace")},
        line="InnerData.points: this attribute was replaced",
    ),
    _data(
        "a callback that replaces the data set, reload_dataloaders_every_n_epochs",
        "replaced",
        callbacks={"replace": use("inner.Replace")},
        overrides=["+trainer.reload_dataloaders_every_n_epochs=1"],
    ),
]
