"""Every experiment trains, saves what loads with `weights_only`, and resumes from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from fulgurite import Run, build, validate
from tests.conftest import ComposeSmall, callbacks_of
from tests.support.project import CONFIGS, shipped_options

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
SHIPPED = shipped_options("experiment")
# four batches an epoch: a model that optimizes by hand may take a step after several only
TWO_EPOCHS = ("trainer.max_epochs=2", "++trainer.limit_train_batches=4", "++trainer.num_sanity_val_steps=0")


def train(cfg: DictConfig, checkpoints: Path) -> Run:
    """Train, and keep the checkpoint of each epoch as `epoch=<n>.ckpt`."""
    validate(cfg)
    run = build(cfg)
    callbacks_of(run.trainer).append(
        ModelCheckpoint(checkpoints, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    )
    run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.restore(), weights_only=True)
    return run


def _case(experiment: str) -> object:
    # a warning ends a test, but not one of your own experiment
    marks = [] if experiment in SHIPPED else [pytest.mark.filterwarnings("default")]
    return pytest.param(experiment, marks=marks, id=experiment)


@pytest.mark.parametrize("experiment", [_case(experiment) for experiment in EXPERIMENTS])
def test_every_experiment_trains_saves_and_resumes(experiment: str, small: ComposeSmall, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints/epoch=0.ckpt"
    full = train(small(f"experiment={experiment}", *TWO_EPOCHS, folder=tmp_path / "full"), checkpoint.parent)
    saved = torch.load(checkpoint, weights_only=True)
    assert full.trainer.global_step == 2 * saved["global_step"] > 0
    final = full.model.state_dict()
    # `on_save_checkpoint` may leave out weights of a model that says so
    assert saved["state_dict"].keys() == final.keys() or not full.model.strict_loading
    assert saved["state_dict"].keys() <= final.keys()

    cfg = small(f"experiment={experiment}", *TWO_EPOCHS, f"ckpt_path='{checkpoint}'", folder=tmp_path / "resumed")
    resumed = train(cfg, tmp_path / "resumed/checkpoints")
    assert resumed.trainer.global_step == full.trainer.global_step
    weights = resumed.model.state_dict()
    if experiment in SHIPPED:  # of your own: python -m fulgurite prove-resume
        assert [name for name, value in final.items() if not torch.equal(weights[name], value)] == []
    assert any(not torch.equal(value, weights[name]) for name, value in saved["state_dict"].items())
