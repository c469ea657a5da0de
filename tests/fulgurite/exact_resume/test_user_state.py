"""Values of attributes survive a checkpoint in their types, and a run without exact resume is recorded as inexact."""

from __future__ import annotations

import io
import json
import logging
import random
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from fulgurite import compose
from fulgurite.core.context import current_context
from fulgurite.exact_resume.setup import apply_exact_resume
from fulgurite.exact_resume.user_state.plain_values import (
    NotPlainError,
    fingerprint,
    from_plain,
    set_in_place,
    to_plain,
)
from src.train import train

VALUES: list[Any] = [
    np.random.default_rng(3),
    np.random.RandomState(1),
    torch.Generator().manual_seed(1),
    random.Random(2),
    [1, (2.5, None), {"x": {1, 2}}],
    deque([1.0], 3),
    defaultdict(list, {1: [2]}),
    Counter("aab"),
    OrderedDict(a=1),
    frozenset([1]),
    np.arange(3.0),
    np.array(["2020-01-01"], dtype="M8[D]"),
    np.float32(2),
    torch.ones(2)[0],
    torch.zeros(2, requires_grad=True),
    Path("a/b"),
    b"12",
    2**90,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_plain_value_survives_a_checkpoint_in_its_type(value: Any) -> None:
    with io.BytesIO() as file:
        torch.save(to_plain(value), file)
        file.seek(0)
        restored = from_plain(torch.load(file, weights_only=True), torch.device("cpu"))
    assert type(restored) is type(value)
    assert fingerprint(restored, set()) == fingerprint(value, set())
    assert getattr(restored, "requires_grad", None) == getattr(value, "requires_grad", None)


def test_a_generator_that_others_share_is_restored_in_place() -> None:
    shared = np.random.default_rng(0)
    saved = to_plain(shared)
    expected = shared.random()
    assert set_in_place(shared, from_plain(saved, torch.device("cpu")))
    assert shared.random() == expected


def test_a_loss_with_its_graph_is_saved_without_it() -> None:
    loss = torch.ones(1, requires_grad=True).sum() * 2
    assert not from_plain(to_plain([loss]), torch.device("cpu"))[0].requires_grad


@pytest.mark.parametrize("value", [object(), [object()], {1: torch.nn.Linear(1, 1)}, defaultdict(lambda: 0)])
def test_an_object_is_not_plain(value: Any) -> None:
    with pytest.raises(NotPlainError):
        to_plain(value)


@pytest.mark.parametrize("change", [lambda v: v["rows"].append(1), lambda v: v["net"].weight.data.zero_()])
def test_a_change_deep_inside_a_value_changes_its_fingerprint(change: Any) -> None:
    value = {"rows": [0], "net": torch.nn.Linear(1, 1)}
    before = fingerprint(value, set())
    assert fingerprint(value, set()) == before
    change(value)
    assert fingerprint(value, set()) != before


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
