"""A run without exact resume is recorded as inexact, and the shipped model as exact."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from fulgurite import compose
from fulgurite.core.context import current_context
from fulgurite.exact_resume.setup import apply_exact_resume
from src.train import train


def test_a_run_without_exact_resume_is_recorded_and_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(current_context(), "inexact", [])
    with caplog.at_level(logging.WARNING):
        apply_exact_resume(Trainer(logger=False, accelerator="cpu"), 1, enabled=False, resumes=False)
    assert current_context().inexact == ["resilience.exact_resume=false: Lightning resumes this run. Set it to true."]
    assert not [record for record in caplog.records if "not exact" in record.getMessage()]


def test_a_long_run_of_the_shipped_model_names_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    small = (
        "+trainer.limit_train_batches=2",
        "+trainer.limit_val_batches=1",
        "test=false",
        "extras.print_config=false",
    )
    train(compose([*small, "trainer.max_epochs=9"], output_dir=folder))
    record = json.loads((folder / "run.json").read_text())
    assert (record["exact"], record["inexact"]) == (True, [])
