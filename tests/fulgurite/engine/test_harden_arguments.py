"""Test that `harden` and `LastCheckpoint` refuse wrong arguments in one line, before anything runs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import RandomDataset
from torch.utils.data import DataLoader

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from tests.support.quiet_trainer import quiet_trainer


def refusal(folder: Path, **wrong: Any) -> str:
    """Return the message with which `harden` refuses arguments."""
    data: Any = {"datamodule": LightningDataModule(), "run_dir": folder, "seed": 1, "handle_signals": False, **wrong}
    trainer = data.pop("trainer") if "trainer" in data else quiet_trainer()
    with pytest.raises(fulgurite.UserError) as refused:
        fulgurite.harden(trainer, **data)
    return str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"trainer": None}, "harden(trainer=None): is of type NoneType. Pass Trainer."),
        ({"trainer": LightningDataModule()}, "harden(trainer=...): is of type LightningDataModule. Pass Trainer."),
        ({"trainer": Trainer}, "harden(trainer=...): is the class Trainer itself, not an object. Pass Trainer."),
        ({"datamodule": "x"}, "harden(datamodule='x'): is of type str. Pass LightningDataModule or None."),
        (
            {"datamodule": DataLoader(RandomDataset(1, 1))},
            "harden(datamodule=...): is of type DataLoader. Pass LightningDataModule",
        ),
        ({"datamodule": LightningModule()}, "is of type LightningModule. Pass LightningDataModule or None."),
        ({"datamodule": LightningDataModule}, "is the class LightningDataModule itself, not an object. Pass"),
        ({"seed": "1"}, "harden(seed='1'): is of type str. Pass int or None."),
        ({"seed": 1.5}, "harden(seed=1.5): is of type float. Pass int or None."),
        ({"seed": True}, "harden(seed=True): is of type bool. Pass int or None."),
        ({"run_dir": None}, "harden(run_dir=None): is of type NoneType. Pass str or Path."),
        ({"stream_resume": "foo"}, "harden(stream_resume='foo'): is not known. Pass 'skip' or 'restart'."),
        ({"grace_seconds": -1}, "harden(grace_seconds=-1): is not a time. Set a number of seconds, 0 or more."),
        ({"grace_seconds": math.nan}, "harden(grace_seconds=nan): is not a time."),
        ({"grace_seconds": "60"}, "harden(grace_seconds='60'): is of type str. Pass float."),
        ({"worker_timeout_seconds": math.inf}, "harden(worker_timeout_seconds=inf): is not a time."),
        ({"rank_timeout_seconds": 0}, "harden(rank_timeout_seconds=0): is not above 0 and finite. Set e.g. 600."),
        ({"exact_resume": 1}, "harden(exact_resume=1): is of type int. Pass bool."),
        ({"checkpoint_metadata": {"a": object()}}, "harden(checkpoint_metadata=...): has no form in JSON ("),
    ],
)
def test_a_wrong_argument_is_one_line(wrong: dict[str, Any], line: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, **wrong)
    assert line in message
    assert "\n" not in message


def test_each_wrong_argument_has_a_line(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, seed="1", grace_seconds=-1).splitlines()) == 2


def test_a_trainer_of_pytorch_lightning_is_refused(tmp_path: Path) -> None:
    trainer = type("Trainer", (), {"__module__": "pytorch_lightning.trainer.trainer"})()
    expected = "harden(trainer=...): is of pytorch_lightning. Import from lightning.pytorch."
    assert refusal(tmp_path, trainer=trainer) == expected


def test_a_run_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/run"):
        assert f"harden(run_dir={folder}): cannot be created (" in refusal(folder)


def test_values_that_fit_are_taken(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    fits: dict[str, Any] = {"grace_seconds": 0, "worker_timeout_seconds": numpy.float64(0), "handle_signals": False}
    fulgurite.harden(quiet_trainer(), None, run_dir=tmp_path / "new/run", seed=numpy.int64(1), **fits)
    assert (tmp_path / "new/run").is_dir()


@pytest.mark.parametrize("wrong", [{"every_n_epochs": 0}, {"every_n_train_steps": 0}, {"every_n_train_steps": "5"}])
def test_an_interval_of_no_steps_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    [(name, value)] = wrong.items()
    expected = f"LastCheckpoint({name}={value!r}): is not a whole number above 0. Set 1 or more."
    with pytest.raises(fulgurite.UserError, match=f"^{re.escape(expected)}$"):
        LastCheckpoint(tmp_path, **wrong)


def test_a_folder_of_checkpoints_that_cannot_be_created_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    callback = LastCheckpoint(tmp_path / "file/checkpoints")
    with pytest.raises(fulgurite.UserError, match=r"^LastCheckpoint\(dirpath='.*'\): cannot be created \(Not a dir"):
        callback.setup(quiet_trainer([callback]), LightningModule(), "fit")
