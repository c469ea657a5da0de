"""Every experiment of the gallery composes, takes steps that lower its loss, and resumes bit-identically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from fulgurite import Run, build, validate
from src.models.schedules import WarmupCosineLR
from tests.conftest import ComposeSmall
from tests.gallery.files import SAMPLE, write_files
from tests.support.project import CONFIGS

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment/gallery").glob("*.yaml"))
LARGE = {"alexnet", "nin", "vgg11", "googlenet", "resnet18", "resnet18_small_stem", "densenet"}  # too slow here
DATA = {"airfoil": "data.source.data_dir", "house_prices": "data.data_dir", "sentences": "data.data_dir"}
FAST = {"linear_regression", "house_prices", "lenet", "gru", "seq2seq"}  # one of each task and kind of data
SHORT = ("trainer.max_epochs=2", "++trainer.check_val_every_n_epoch=1", "++trainer.num_sanity_val_steps=0")


def overrides_of(experiment: str, folder: Path) -> list[str]:
    """Return overrides that replace downloads by small files."""
    text = (CONFIGS / f"experiment/gallery/{experiment}.yaml").read_text()
    if "gallery/fashion" in text:
        return [*SAMPLE, "data.batch_size=16", *(["data.image_size=32"] if experiment in LARGE else [])]
    if "gallery/language_model" in text:
        return ["model.net.hidden_size=16"]
    [name] = [line.rpartition("/")[2] for line in text.splitlines() if "override /data" in line]
    if name not in DATA:
        return []
    return [f"{DATA[name]}={folder}", *write_files(name, folder)]


def fitted(cfg: DictConfig) -> Run:
    """Return a run after its training."""
    validate(cfg)
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.restore(), weights_only=True)
    return run


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_builds(experiment: str, small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small(f"experiment=gallery/{experiment}", *overrides_of(experiment, tmp_path))
    validate(cfg)
    assert sum(parameter.numel() for parameter in build(cfg).model.parameters()) > 0


@pytest.mark.parametrize("experiment", ["lenet", "weight_decay", "gru", "transformer", "self_supervised"])
def test_every_task_takes_a_schedule(experiment: str, small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small(f"experiment=gallery/{experiment}", *overrides_of(experiment, tmp_path), "scheduler=warmup_cosine")
    validate(cfg)
    built: Any = build(cfg).model.configure_optimizers()
    assert type(built["lr_scheduler"]["scheduler"]) is WarmupCosineLR
    assert built["optimizer"].param_groups[0]["lr"] == 0.0  # the first of the warmup


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in sorted(set(EXPERIMENTS) - LARGE)],
)
def test_every_experiment_resumes_as_if_it_had_not_stopped(
    experiment: str, small: ComposeSmall, tmp_path: Path
) -> None:
    same = [f"experiment=gallery/{experiment}", *overrides_of(experiment, tmp_path), *SHORT]
    full = fitted(small(*same, folder=tmp_path / "full"))
    fitted(small(*same, "trainer.max_epochs=1", folder=tmp_path / "half"))
    checkpoint = tmp_path / "half/checkpoints/last.ckpt"
    resumed = fitted(small(*same, f"ckpt_path='{checkpoint}'", folder=tmp_path / "resumed"))
    assert resumed.trainer.global_step == full.trainer.global_step > 0
    weights = resumed.model.state_dict()
    assert [name for name, value in full.model.state_dict().items() if not torch.equal(weights[name], value)] == []
    started = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert any(not torch.equal(value, weights[name]) for name, value in started.items())
