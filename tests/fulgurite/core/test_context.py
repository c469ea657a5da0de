"""Test how messages name a setting: by its key where a config was composed, as in Python elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

import fulgurite
from fulgurite.callbacks import LastCheckpoint, NaNGuard
from fulgurite.core.context import ProcessContext, set_context, setting
from fulgurite.core.errors import Diverged
from tests.support.quiet_trainer import quiet_trainer


def test_a_script_has_no_keys() -> None:
    assert setting("resilience.grace_seconds") == "harden(grace_seconds=...)"
    assert setting("callbacks.last_checkpoint", "LastCheckpoint") == "LastCheckpoint"


def test_a_run_of_a_config_has_keys() -> None:
    set_context(ProcessContext(config_name="train"))
    assert setting("callbacks.last_checkpoint", "LastCheckpoint") == "callbacks.last_checkpoint"
    set_context(ProcessContext())
    fulgurite.compose(["experiment=example"])
    assert setting("resilience.grace_seconds") == "resilience.grace_seconds"


class Bad(BoringModel):
    """Has a loss that is NaN."""

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        """Return it."""
        return torch.tensor(float("nan"), requires_grad=True)


@pytest.mark.filterwarnings("ignore")
def test_a_bad_loss_of_a_script_names_what_a_script_has() -> None:
    with pytest.raises(Diverged) as stopped:
        quiet_trainer([NaNGuard()], max_steps=1).fit(Bad(), BoringDataModule())
    remedy = "Lower the learning rate or pass Trainer(gradient_clip_val=1)"
    expected = f"{remedy}, or find the module with NaNGuard(find_nan=True)."
    assert str(stopped.value).endswith(expected)


def test_last_checkpoint_of_a_config_names_its_key(tmp_path: Path) -> None:
    set_context(ProcessContext(config_name="train"))
    with pytest.raises(
        fulgurite.UserError, match=r"^callbacks.last_checkpoint.every_n_epochs=0: is not a whole number"
    ):
        LastCheckpoint(tmp_path, every_n_epochs=0)
