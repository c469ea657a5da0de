"""Weights that a checkpoint leaves out are named where they change, and refused where it could not be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fulgurite
from fulgurite.checkpoints.left_out import LeftOutWeights
from fulgurite.core.context import current_context
from tests.fulgurite.checkpoints.test_content import fit
from tests.support.toy_task import OrdinaryModel


class Partial(OrdinaryModel):
    """Saves no weights whose name begins with one of the prefixes; the linear layers' are frozen on request."""

    def __init__(self, *left_out: str, frozen: bool = False, strict: bool = False) -> None:
        super().__init__()
        self.left_out, self.strict_loading = left_out, strict
        self.net[0].requires_grad_(not frozen)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave them out."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if not name.startswith(self.left_out)}


def test_a_frozen_layer_may_be_left_out(tmp_path: Path) -> None:
    fit(tmp_path, Partial("net.0.", frozen=True), epochs=2)
    assert current_context().inexact == []


def test_trained_weights_that_are_left_out_are_named_at_the_start(tmp_path: Path) -> None:
    fit(tmp_path, Partial("net.0."))
    [line] = current_context().inexact
    assert line.startswith("Partial.on_save_checkpoint: net.0.weight, net.0.bias are not saved but change in training;")


def test_running_means_that_are_left_out_are_named(tmp_path: Path) -> None:
    fit(tmp_path, Partial("net.1.running", frozen=True))
    [line] = current_context().inexact
    assert line.startswith("Partial.on_save_checkpoint: net.1.running_mean, net.1.running_var are not saved but change")


def test_a_strict_model_that_leaves_weights_out_is_refused_before_the_first_step(tmp_path: Path) -> None:
    model = Partial("net.0.", frozen=True, strict=True)
    with pytest.raises(fulgurite.UserError, match=r"^Partial: no checkpoint could be loaded again, .* net\.0\.weight"):
        fit(tmp_path, model)
    assert model.trainer.global_step == 0


def test_a_model_that_restores_its_weights_itself_is_left_alone() -> None:
    class Own(Partial):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            pass

    LeftOutWeights().check(Own("net.", strict=True), {}, is_first=True)
    assert current_context().inexact == []


def test_a_change_is_found_in_a_sample() -> None:
    model, weights = OrdinaryModel(), LeftOutWeights()
    model.strict_loading = False
    model.requires_grad_(requires_grad=False)
    weights.check(model, {}, is_first=False)
    assert current_context().inexact == []
    model.state_dict()["net.4.weight"].mul_(1.001)
    weights.check(model, {}, is_first=False)
    [line] = current_context().inexact
    assert "net.4.weight are not saved" in line
