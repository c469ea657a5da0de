"""The callbacks of the gallery see the model as it is tested, and measure what they state."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import SGD

from fulgurite import UserError
from src.gallery.callbacks.texts import GeneratedText
from src.gallery.callbacks.token_rate import TokenRate
from src.gallery.data.characters import CharacterVocab
from src.gallery.nets.recurrent import RecurrentLM
from src.gallery.tasks.language_model import LanguageModel


def test_a_text_is_generated_in_eval_mode(tmp_path: Path) -> None:
    vocab = CharacterVocab("a rose is a rose")
    task = LanguageModel(RecurrentLM(len(vocab), hidden_size=4), SGD)
    modes = []
    task.net.register_forward_hook(lambda net, *_: modes.append(net.training))
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(vocab=vocab), default_root_dir=str(tmp_path))
    GeneratedText("a rose", 5).on_fit_end(trainer, task)
    assert (tmp_path / "generated.txt").read_text().startswith("a rose")
    assert set(modes) == {False}
    assert task.training


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(UserError, match=r"^prefix=: "):
        GeneratedText("")


def test_the_rate_includes_the_work_that_the_device_has_not_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Loss:
        def item(self) -> float:
            clock[0] += 2.0  # the device finishes
            return 1.0

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    rate, nothing = TokenRate(), Any
    batch = (torch.zeros(3, 4), torch.zeros(3, 4))
    for _ in range(2):
        rate.on_train_batch_start(nothing, nothing, batch, 0)  # type: ignore[arg-type]
        clock[0] += 1.0
        rate.on_train_batch_end(nothing, nothing, {"loss": Loss()}, batch, 0)  # type: ignore[arg-type]
    assert (rate.seconds, rate.tokens) == (6.0, 24)
