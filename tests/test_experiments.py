"""Every experiment takes two steps, saves, and resumes from the first to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from fulgurite import Run, build, validate
from tests.conftest import ComposeSmall, callbacks_of
from tests.support.project import ROOT

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs/experiment").glob("*.yaml"))


TWO_STEPS = ("trainer.max_epochs=2", "++trainer.limit_train_batches=1", "++trainer.num_sanity_val_steps=0")


def train(cfg: DictConfig, checkpoints: Path) -> Run:
    """Train, and keep the checkpoint of each epoch as `step=<n>.ckpt`."""
    validate(cfg)
    run = build(cfg)
    callbacks_of(run.trainer).append(
        ModelCheckpoint(checkpoints, filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    )
    run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.restore(), weights_only=True)
    return run


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_saves_and_resumes_to_the_same_end(
    experiment: str, small: ComposeSmall, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoints/step=1.ckpt"
    full = train(small(f"experiment={experiment}", *TWO_STEPS, folder=tmp_path / "full"), checkpoint.parent)
    assert full.trainer.global_step == 2
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 1
    assert saved["state_dict"].keys() == full.model.state_dict().keys()

    cfg = small(f"experiment={experiment}", *TWO_STEPS, f"ckpt_path='{checkpoint}'", folder=tmp_path / "resumed")
    resumed = train(cfg, tmp_path / "resumed/checkpoints")
    assert resumed.trainer.global_step == 2
    weights = resumed.model.state_dict()
    assert [name for name, value in full.model.state_dict().items() if not torch.equal(weights[name], value)] == []
    assert any(not torch.equal(saved["state_dict"][name], value) for name, value in weights.items())
