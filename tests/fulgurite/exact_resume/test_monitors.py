"""Ranks that monitor different scores keep their own at a resume."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from fulgurite.exact_resume.monitors import monitor_states, restore_monitor_states


def _trainer(folder: Path) -> tuple[Trainer, ModelCheckpoint, EarlyStopping]:
    best, early = ModelCheckpoint(folder, monitor="val/loss"), EarlyStopping("val/loss")
    trainer = Trainer(logger=False, accelerator="cpu", callbacks=[best, early], enable_progress_bar=False)
    return trainer, best, early


def test_a_rank_restores_its_scores_and_keeps_the_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, best, early = _trainer(tmp_path / "old")
    best.best_k_models = {"old/a.ckpt": torch.tensor(0.5)}
    best.best_model_score, early.wait_count = torch.tensor(0.5), 3
    monkeypatch.setattr(Trainer, "world_size", 2)
    saved = monitor_states(trainer)
    resumed, best, early = _trainer(tmp_path / "new")
    best.best_k_models = {"new/a.ckpt": torch.tensor(0.9)}  # what Lightning loaded is of rank 0
    best.best_model_score = torch.tensor(0.9)
    restore_monitor_states(resumed, saved)
    assert {file: float(score) for file, score in best.best_k_models.items()} == {"new/a.ckpt": 0.5}
    assert (float(best.best_model_score), early.wait_count) == (0.5, 3)


def test_one_process_saves_nothing_more(tmp_path: Path) -> None:
    assert monitor_states(_trainer(tmp_path)[0]) == []
