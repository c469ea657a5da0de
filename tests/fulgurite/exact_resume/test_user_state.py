"""A run without exact resume is recorded as inexact, and the shipped model as exact."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from torch import nn

from fulgurite import compose
from fulgurite.core.context import current_context
from fulgurite.exact_resume.callback import ExactResume
from fulgurite.exact_resume.setup import apply_exact_resume
from fulgurite.exact_resume.used_code import used_code
from fulgurite.exact_resume.used_code.reachable import Search, imported_modules
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


def test_a_save_lists_the_modules_of_a_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[list[str]] = []
    real, save = nn.Module.named_modules, ExactResume.state_dict
    searches: list[Search] = []

    def named_modules(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        walks[-1].append(type(self).__name__)
        return real(self, *args, **kwargs)

    def state_dict(self: ExactResume) -> dict[str, Any]:
        walks.append([])
        with monkeypatch.context() as patched:
            patched.setattr(nn.Module, "named_modules", named_modules)
            return save(self)

    def search() -> Search:
        searches.append(Search())
        return searches[-1]

    monkeypatch.setattr(ExactResume, "state_dict", state_dict)
    monkeypatch.setattr(used_code, "Search", search)
    folder = tmp_path / "run"
    folder.mkdir()
    small = ("+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1", "test=false", "trainer.max_epochs=1")
    train(compose([*small, "callbacks.last_checkpoint.every_n_train_steps=1"], output_dir=folder))
    assert len(walks) > 1
    assert [names for names in walks if names] == []
    # that of the run and that of its samplers continue with the loaders of each kind
    assert len(searches) == 2


def test_imports_are_found_beside_more_names_than_one_byte_counts() -> None:
    names = "\n".join(f"    name_{number}, {number}.5" for number in range(300))
    source = f"def step():\n{names}\n    from .helper import part\n    import whole.module\n"
    space: dict[str, Any] = {"__package__": "package"}
    exec(source, space)  # noqa: S102 - a function of so many names
    found = imported_modules(space["step"])
    assert found == ["package.helper", "package.helper.part", "whole.module"]
