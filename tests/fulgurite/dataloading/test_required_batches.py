"""A training without a batch is refused in one line, before untrained weights are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import read_json
from tests.support.quiet_trainer import MadeData, fit_hardened

pytestmark = pytest.mark.filterwarnings("ignore:Total length of")


def examples(count: int) -> TensorDataset:
    """Return this many examples."""
    return TensorDataset(torch.ones(count, 2))


class Nothing(IterableDataset[Any]):
    """A stream without examples."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Model(LightningModule):
    """Takes a batch of one or several loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return a loss."""
        [x] = batch["a"] if isinstance(batch, dict) else batch
        return torch.as_tensor(self.net(x).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def full() -> DataLoader[Any]:
    """Return a loader of two batches."""
    return DataLoader(examples(8), batch_size=4)


def fit(folder: Path, make: Callable[[], Any] = full, *, resumes: bool = False, **settings: Any) -> int:
    """Train, and return the step at the end."""
    source, settings = folder / "last.ckpt" if resumes else None, {"max_epochs": 1, **settings}
    return fit_hardened(
        Model(), MadeData(make), folder, [LastCheckpoint(folder)], ckpt_path=source, **settings
    ).global_step


EMPTY: dict[str, Callable[[], Any]] = {
    "no examples": lambda: DataLoader(examples(0)),
    "drop_last": lambda: DataLoader(examples(3), batch_size=8, drop_last=True),
    "drop_last and shuffle": lambda: DataLoader(examples(3), batch_size=8, drop_last=True, shuffle=True),
    "stream": lambda: DataLoader(Nothing()),
    "no loader": list,
    "one of several": lambda: {"a": full(), "b": DataLoader(examples(0))},
    "stream among several": lambda: {"a": full(), "b": DataLoader(Nothing())},
    "shortest of several": lambda: CombinedLoader({"a": full(), "b": DataLoader(examples(0))}, "min_size"),
}


@pytest.mark.parametrize("form", EMPTY)
def test_loaders_without_a_batch_are_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(fulgurite.UserError, match=r"^data: the training loader yields no batch.* Check the .*\.$"):
        fit(tmp_path, EMPTY[form])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_refusal_names_the_number_of_examples(tmp_path: Path) -> None:
    with pytest.raises(fulgurite.UserError, match=r"yields no batch \(3 examples.*\)\. Check"):
        fit(tmp_path, EMPTY["drop_last"])


def test_a_sampler_without_examples_is_explained(tmp_path: Path) -> None:
    with pytest.raises(fulgurite.UserError, match=r"^data: the training set has no examples\. Check its path"):
        fit(tmp_path, lambda: DataLoader(examples(0), shuffle=True))
    with pytest.raises(ValueError, match="another"):
        fit(tmp_path, lambda: (_ for _ in ()).throw(ValueError("another")))


@pytest.mark.parametrize("setting", ["limit_train_batches", "max_epochs", "max_steps"])
def test_a_limit_of_zero_is_refused_by_its_key(tmp_path: Path, setting: str) -> None:
    settings: dict[str, Any] = {setting: 0}
    with pytest.raises(fulgurite.UserError, match=rf"^trainer\.{setting}=0: leaves no batch to train on\. Raise it\."):
        fit(tmp_path, **settings)


def test_a_training_stopped_before_its_first_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fulgurite.UserError, match=r"^trainer: the training was stopped before its first batch\."):
        fit(tmp_path, max_time={"seconds": 0})


def test_a_finished_run_resumes_without_a_batch(tmp_path: Path) -> None:
    assert fit(tmp_path) == 2
    assert fit(tmp_path, resumes=True) == 2
    assert fit(tmp_path, fast_dev_run=True) == 1


def test_nothing_is_scored_after_a_training_without_a_batch(small: ComposeSmall, tmp_path: Path) -> None:
    with pytest.raises(fulgurite.UserError, match=r"^trainer\.limit_train_batches=0: leaves no batch to train on\."):
        train(small("trainer.limit_train_batches=0"))
    assert not (tmp_path / "run/results.json").exists()
    assert read_json(tmp_path / "run/run.json")["exit_code"] == 2
