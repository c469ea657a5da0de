"""A callback costs a training step nothing at the hooks it does not have."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, LambdaCallback
from torch import nn

from fulgurite.compat.idle_hooks import HOOKS_OF_A_STEP, HOOKS_OF_A_TRAINING_STEP, skip_idle_hooks
from fulgurite.engine.build import build
from tests.conftest import ComposeSmall, callbacks_of


class Counts(Callback):
    """Counts at one hook."""

    def __init__(self) -> None:
        self.seen = 0

    def on_after_backward(self, *_: Any) -> None:
        """Count."""
        self.seen += 1


def test_hooks_that_are_only_inherited_are_left_out_and_all_others_called(small: ComposeSmall) -> None:
    seen: list[int] = []
    counts, given = Counts(), LambdaCallback(on_before_backward=lambda *_: seen.append(1))
    skip_idle_hooks([counts, given])
    assert [name for name in HOOKS_OF_A_STEP if callable(getattr(counts, name))] == ["on_after_backward"]
    assert [name for name in HOOKS_OF_A_STEP if callable(getattr(given, name))] == ["on_before_backward"]
    assert callable(Counts().on_train_batch_end)  # others of the class are as they were
    run = build(small())
    callbacks_of(run.trainer).extend([counts, given])
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert counts.seen == len(seen) == 4


def test_every_callback_of_a_run_is_relieved_of_its_idle_hooks(small: ComposeSmall) -> None:
    for callback in callbacks_of(build(small()).trainer):
        own = {name for name in HOOKS_OF_A_STEP if getattr(type(callback), name) is not getattr(Callback, name)}
        assert {name for name in HOOKS_OF_A_STEP if callable(getattr(callback, name))} == own


def test_a_model_and_a_strategy_skip_what_they_inherit(small: ComposeSmall) -> None:
    run = build(small())
    assert not any(callable(getattr(run.model, name)) for name in HOOKS_OF_A_TRAINING_STEP)
    assert callable(run.model.on_validation_batch_start), "Lightning inspects the evaluation hooks of a model"
    assert vars(run.trainer.strategy)["on_train_batch_start"] is None
    skip_idle_hooks([model := HasHook()])
    own = [name for name in HOOKS_OF_A_TRAINING_STEP if callable(getattr(model, name))]
    assert own == ["on_after_backward"]


class HasHook(LightningModule):
    """Has one hook of its own."""

    def on_after_backward(self) -> None:
        """Do nothing."""


def test_the_name_of_the_hook_skips_the_checks_of_parameters_and_all_else_passes_them() -> None:
    skip_idle_hooks([])
    model = HasHook()
    model.layer = nn.Linear(2, 2)
    model._current_fx_name = "training_step"
    assert vars(model)["_current_fx_name"] == "training_step"
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    before = LightningModule.__setattr__
    skip_idle_hooks([])
    assert LightningModule.__setattr__ is before
