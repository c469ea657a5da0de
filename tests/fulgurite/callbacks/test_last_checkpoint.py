"""The last checkpoint: saved within every epoch that allows it, and written by one callback only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from fulgurite.checkpoints import newest_checkpoint
from tests.support.quiet_trainer import fit_hardened
from tests.support.shapes.loaders import Data
from tests.support.shapes.models import GAN, ManualAccumulation, Net
from tests.support.shapes.training import Teacher


class StepsInFile(Callback):
    """Keeps the batch and the step of the last checkpoint at the start of each batch."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: list[int | None] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Read the file."""
        self.seen.append(torch.load(self.file, weights_only=True)["global_step"] if self.file.exists() else None)


def fit(folder: Path, make: Callable[[], Any], *callbacks: Callback, every: int | None = 1, **switches: Any) -> None:
    """Train one epoch of six batches and save as often as possible."""
    seed_everything(1, verbose=False)
    model = make()
    called = [*callbacks, LastCheckpoint(folder, every_n_train_steps=every)]
    few = {"max_epochs": 1, "limit_train_batches": 6, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    fit_hardened(model, Data(), folder, called, ckpt_path=newest_checkpoint(folder), **{**few, **switches})


@pytest.mark.parametrize(
    ("model", "switches", "expected"),
    [
        (Net, {"log_every_n_steps": 1}, [None, 1, 2, 3, 4, 5]),
        (Teacher, {}, [None, 1, 2, 3, 4, 5]),
        (Net, {"val_check_interval": 2}, [None, 1, 1, 3, 3, 5]),  # not right after a validation
        (Net, {"accumulate_grad_batches": 3}, [None, None, None, 1, 1, 1]),
        (ManualAccumulation, {}, [None, None, 1, 1, 2, 2]),  # not amid an accumulation by hand
        # each step is followed by a validation, and the batches between belong to the next step
        (ManualAccumulation, {"val_check_interval": 2}, [None] * 6),
        (GAN, {}, [None, 2, 4, 6, 8, 10]),
    ],
)
def test_every_step_that_can_be_resumed_is_saved(
    model: type[Net], switches: dict[str, Any], expected: list[int | None], tmp_path: Path
) -> None:
    steps = StepsInFile(tmp_path / "last.ckpt")
    fit(tmp_path, model, steps, **switches)
    assert steps.seen == expected


def test_gradients_are_saved_only_where_a_model_clears_them_itself(tmp_path: Path) -> None:
    for model, has_gradients in ((Net, False), (ManualAccumulation, False), (GAN, True)):
        folder = tmp_path / model.__name__
        fit(folder, model, limit_val_batches=0)  # Lightning clears gradients before a validation
        state = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["ExactResume"]
        assert bool(state.get("gradients")) is has_gradients


def test_an_accumulation_by_hand_resumes_across_epochs(tmp_path: Path) -> None:
    for folder, epochs in ((tmp_path / "straight", [2]), (tmp_path / "stopped", [1, 2])):
        for limit in epochs:  # an epoch of six batches ends amid the second four
            fit(folder, partial(ManualAccumulation, every=4), max_epochs=limit, limit_val_batches=0)
    straight, resumed = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("straight", "stopped")
    )
    for name, weight in straight["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name


@pytest.mark.parametrize(
    ("model", "switches", "every", "num_lines"),
    [
        (Net, {"val_check_interval": 1}, 2, 1),
        (Net, {"val_check_interval": 2}, 2, 0),
        (Net, {"val_check_interval": 1}, None, 0),
        (Net, {"val_check_interval": 2, "accumulate_grad_batches": 2}, 1, 1),
        (Net, {"val_check_interval": 2, "accumulate_grad_batches": 3}, 1, 0),
        (ManualAccumulation, {"val_check_interval": 2}, 1, 1),
        (ManualAccumulation, {"val_check_interval": 3}, 1, 0),
        (ManualAccumulation, {"val_check_interval": 2}, None, 0),
    ],
)
def test_a_run_that_cannot_be_saved_within_an_epoch_warns_once(
    model: type[Net],
    switches: dict[str, Any],
    every: int | None,
    num_lines: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, model, every=every, **switches)
    assert caplog.text.count("resumes from the start of its epoch") == num_lines


@pytest.mark.parametrize(
    ("epochs", "text"), [(1, "(trainer.val_check_interval), and"), (2, "check_val_every_n_epoch=2), and")]
)
def test_the_warning_says_in_which_epochs_nothing_is_saved(
    epochs: int, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, Net, val_check_interval=1, check_val_every_n_epoch=epochs)
    assert text in caplog.text


@pytest.mark.parametrize("save_last", [True, "link"])
def test_save_last_of_another_callback_is_left_to_this_one(
    save_last: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", save_last=save_last)
    with caplog.at_level(logging.INFO):
        fit(tmp_path, Net, best)
    lines = [record.getMessage() for record in caplog.records if "save_last" in record.getMessage()]
    assert lines == ["ModelCheckpoint: save_last is left to LastCheckpoint, which writes the same last.ckpt"]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["best.ckpt", "last-previous.ckpt", "last.ckpt"]
    assert not (tmp_path / "last.ckpt").is_symlink()


def test_save_last_in_another_folder_stays(tmp_path: Path) -> None:
    other = ModelCheckpoint(tmp_path / "other", filename="best", monitor="val/loss", save_last=True)
    fit(tmp_path, Net, other)
    assert (tmp_path / "other" / "last.ckpt").is_file()


def test_another_callback_with_the_same_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fulgurite.UserError, match=r"filename=last is the file of LastCheckpoint, .*Set another"):
        fit(tmp_path, Net, ModelCheckpoint(tmp_path, filename="last"))
    assert not list(tmp_path.glob("*.ckpt"))
