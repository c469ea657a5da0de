"""A run directory that was moved keeps its best checkpoint; a loaded state names files of its own folder only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fulgurite.callbacks import LastCheckpoint
from tests.support.quiet_trainer import fit_hardened
from tests.support.toy_task import OrdinaryData, OrdinaryModel


class Scored(OrdinaryModel):
    """Its first epoch has the best score."""

    def on_validation_epoch_end(self) -> None:
        """Log a score that falls by epoch."""
        self.log("score", -float(self.trainer.current_epoch))


def fit(run: Path, epochs: int, source: Path | None = None) -> list[ModelCheckpoint]:
    """Train in a run directory with two folders of checkpoints, and return the callbacks that choose the best."""
    best = ModelCheckpoint(run / "checkpoints", "best-{epoch}", monitor="score", mode="max", save_top_k=2)
    worst = ModelCheckpoint(run / "worst", "worst-{epoch}", monitor="score", mode="min")
    few: dict[str, Any] = {"max_epochs": epochs, "limit_train_batches": 1, "limit_val_batches": 1}
    callbacks = [best, worst, LastCheckpoint(run / "checkpoints")]
    fit_hardened(Scored(), OrdinaryData(), run, callbacks, ckpt_path=source, **few)
    return [best, worst]


def last_of(run: Path) -> Path:
    """Return the newest checkpoint of a run."""
    return run / "checkpoints/last.ckpt"


def test_a_moved_run_keeps_its_best_checkpoints(tmp_path: Path) -> None:
    stays, moved = tmp_path / "stays", tmp_path / "elsewhere/moved"
    fit(stays, 3)
    straight = fit(stays, 4, last_of(stays))
    fit(tmp_path / "first", 3)
    moved.parent.mkdir()
    (tmp_path / "first").rename(moved)
    for callback, expected in zip(fit(moved, 4, last_of(moved)), straight, strict=True):
        state, wanted = callback.state_dict(), expected.state_dict()
        assert str(state).replace(str(moved), str(stays)) == str(wanted)
    files = {path.relative_to(stays) for path in stays.rglob("*.ckpt")}
    assert {path.relative_to(moved) for path in moved.rglob("*.ckpt")} == files
    assert Path("checkpoints/best-epoch=0.ckpt") in files


def test_a_new_run_from_another_runs_checkpoint_chooses_its_own_best(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    fit(tmp_path / "first", 2)
    best, _ = fit(tmp_path / "second", 3, last_of(tmp_path / "first"))
    assert best.best_model_path == str(tmp_path / "second/checkpoints/best-epoch=2.ckpt")
    assert list(best.best_k_models) == [best.best_model_path]
    assert not [warning for warning in recwarn if "dirpath" in str(warning.message)]


@pytest.mark.parametrize("outside", ["precious.txt", "first/checkpoints/../../precious.txt"])
def test_a_state_cannot_name_files_outside_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outside: str
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    run = tmp_path / "first"
    fit(run, 2)
    checkpoint = torch.load(last_of(run), weights_only=True)
    [state] = [each for each in checkpoint["callbacks"].values() if "/best-" in str(each.get("best_model_path"))]
    named = str(tmp_path / outside)
    state["best_k_models"] = {named: torch.tensor(-9.0), **state["best_k_models"]}
    state |= {"kth_best_model_path": named, "kth_value": torch.tensor(-9.0), "last_model_path": named}
    torch.save(checkpoint, tmp_path / "first/checkpoints/edited.ckpt")
    with caplog.at_level(logging.WARNING):
        best, _ = fit(run, 3, tmp_path / "first/checkpoints/edited.ckpt")
    assert precious.read_text() == "keep"
    assert f"has paths outside {run}/checkpoints, which are dropped: {named}" in caplog.text
    assert all(Path(path).parent == run / "checkpoints" for path in best.best_k_models)
    assert len(best.best_k_models) == 2


def test_the_best_of_a_moved_run_is_outside_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path / "first", 1)
    (tmp_path / "first").rename(tmp_path / "moved")
    with caplog.at_level(logging.WARNING):
        [best, _] = fit(tmp_path / "moved", 1, last_of(tmp_path / "moved"))
    assert best.best_model_path == str(tmp_path / "moved/checkpoints/best-epoch=0.ckpt")
    assert "not restored" not in caplog.text
