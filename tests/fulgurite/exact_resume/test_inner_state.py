"""What data sets, samplers and collate functions hold inside resumes within an epoch as it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import ConcatDataset, DataLoader, Sampler, TensorDataset

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from tests.support.quiet_trainer import MadeData, fit_hardened
from tests.support.shapes.hidden import Counting
from tests.support.shapes.inner import InnerData, Replace
from tests.support.shapes.loaders import ROWS, Points
from tests.support.shapes.models import Net


class Model(Net):
    """Trains on one batch, or on the batches of several loaders."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the sum of the losses."""
        return torch.stack([self.loss(part) for part in (batch.values() if isinstance(batch, dict) else [batch])]).sum()


class Turning(Sampler[int]):
    """Iterates over a deque that it turns at each pass."""

    def __init__(self) -> None:
        self.order = deque(range(ROWS))

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        self.order.rotate(5)
        yield from self.order


class Append(Callback):
    """Adds a part to the data set after each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add it."""
        data: Any = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        data.datasets.append(TensorDataset(torch.full((8, 16), 0.1 * trainer.current_epoch), torch.ones(8).long()))
        data.cumulative_sizes = data.cumsum(data.datasets)


class Stop(Callback):
    """Ends a training, as far as a test can, before batch 12 of the run."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Raise what Lightning does not catch."""
        if trainer.global_step == 12:
            raise KeyboardInterrupt


def _shared() -> Any:
    dataset = Counting()
    return {name: DataLoader(dataset, 8, shuffle=True) for name in "ab"}


def _parts() -> Any:
    return DataLoader(ConcatDataset([TensorDataset(torch.rand(56, 16), torch.zeros(56).long())]), 8, shuffle=True)


DATA: dict[str, Callable[[], LightningDataModule]] = {
    "a data set in a data set": lambda: InnerData("inside"),
    "a module in a data set": lambda: InnerData("shared", "module"),
    "a shared number": lambda: InnerData("shared", "value"),
    "a generator that data set and data module share": lambda: InnerData("shared", "numpy", num_workers=1),
    "a partial": lambda: InnerData("partial"),
    "a method": lambda: InnerData("method"),
    "a batch sampler that counts": lambda: InnerData("growing"),
    "a memory-mapped file": lambda: InnerData("file"),
    "a list": lambda: MadeData(lambda: DataLoader([Points()[i] for i in range(ROWS)], 8, shuffle=True)),  # type: ignore[arg-type]
    "a deque that is iterated": lambda: MadeData(lambda: DataLoader(Points(), 8, sampler=Turning())),
    "a data set of two loaders": lambda: MadeData(_shared),
    "a data set that gets parts": lambda: MadeData(_parts),
}


class Fade(Callback):
    """Changes an example of a list in place at each batch."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Change one."""
        dataset: Any = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        if isinstance(dataset, list):
            dataset[trainer.global_step][0].mul_(0.5)


def _fit(data: LightningDataModule, folder: Path, *more: Callback) -> Model:
    torch.manual_seed(3)
    model, last = Model(), folder / "last.ckpt"
    callbacks = [*more, LastCheckpoint(folder, every_n_train_steps=3)]
    settings: dict[str, Any] = {"max_epochs": 3, "limit_val_batches": 0, "ckpt_path": last if last.exists() else None}
    fit_hardened(model, data, folder, callbacks, switches={"supervise_ranks": False}, **settings)
    return model


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("name", DATA)
def test_a_run_that_stops_within_an_epoch_ends_as_if_it_had_not(name: str, tmp_path: Path) -> None:
    changes = [Append()] if "parts" in name else [Fade()] if "list" in name else []
    current_context().inexact.clear()
    straight = _fit(DATA[name](), tmp_path / "straight", *changes)
    with pytest.raises(SystemExit):
        _fit(DATA[name](), tmp_path / "stopped", *changes, Stop())
    resumed = _fit(DATA[name](), tmp_path / "stopped", *changes)
    assert all(map(torch.equal, straight.state_dict().values(), resumed.state_dict().values()))
    assert current_context().inexact == []


def test_a_replaced_data_set_is_named_where_its_loader_keeps_the_former(tmp_path: Path) -> None:
    current_context().inexact.clear()
    _fit(InnerData("replaced"), tmp_path, Replace())
    (line,) = current_context().inexact
    current_context().inexact.clear()
    assert line.startswith("InnerData.points: this attribute was replaced, and its loader still has the former object")


class Adds(Callback):
    """Adds a module without weights while the run trains, which no list of weights shows."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Add it."""
        if trainer.global_step == 4:
            pl_module.dropout = torch.nn.Dropout(0.1)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_module_that_is_added_in_training_is_named(tmp_path: Path) -> None:
    current_context().inexact.clear()
    _fit(InnerData("inside"), tmp_path, Adds())
    lines = list(current_context().inexact)
    current_context().inexact.clear()
    assert lines == ["model.dropout: code added it while the run trained. Make it in __init__."]
