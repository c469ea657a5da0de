"""The template works without the gallery, and a task is added beside it as a newcomer would add it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

PARTS = (
    "src/gallery",
    "tests/gallery",
    *(f"configs/{group}/gallery" for group in ("callbacks", "data", "experiment", "model")),
)
TAGS = '''
"""Tags of a digit: several may hold at once."""

import torch
from torch import nn
from lightning.pytorch import LightningModule
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.classification import MultilabelF1Score

TAGS = torch.tensor([[digit % 2 == 0, digit > 4, digit in (0, 6, 8, 9)] for digit in range(10)]).float()


class Tagger(LightningModule):
    def __init__(self, net: nn.Module, lr: float = 0.001):
        super().__init__()
        self.net, self.lr = net, lr
        self.f1 = MultilabelF1Score(num_labels=3)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = binary_cross_entropy_with_logits(self.net(images), TAGS.to(images.device)[labels])
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.f1.update(self.net(images), TAGS.to(images.device)[labels].int())

    def on_validation_epoch_end(self):
        self.log("val/f1", self.f1.compute(), prog_bar=True)
        self.f1.reset()

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self):
        self.log("test/f1", self.f1.compute())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)
'''
MODEL = """
_target_: src.models.tagger.Tagger
lr: 0.002
net:
  _target_: src.models.nets.convnet.SimpleConvNet
  output_size: 3
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /model: tagger
monitor: val/f1
trainer:
  max_epochs: 2
"""
FILES = {
    "src/models/tagger.py": TAGS,
    "configs/model/tagger.yaml": MODEL,
    "configs/experiment/tagging.yaml": EXPERIMENT,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the files that git tracks, except the gallery."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(tuple(f"{part}/" for part in PARTS)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(project: Path, *arguments: str) -> str:
    """Run Python in the project as a user does; return its output."""
    env = {name: value for name, value in os.environ.items() if name not in {"PROJECT_ROOT", "PYTHONPATH"}}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_outside_names_the_gallery() -> None:
    files = [path for folder in ("src", "configs", "fulgurite") for path in (ROOT / folder).rglob("*.[py]*")]
    outside = [path for path in files if "gallery" not in path.parts and path.suffix in {".py", ".yaml"}]
    naming = [path for path in outside if re.search(r"src\.gallery|gallery/\w+@|/\w+: gallery/", path.read_text())]
    assert naming == []


@pytest.mark.slow
def test_the_project_s_own_tests_pass_without_the_gallery(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    tests = [path.relative_to(project).as_posix() for path in (project / "tests").glob("test_*.py")]
    out = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)
    assert re.search(r"\d+ passed", out)


@pytest.mark.slow
def test_a_newcomer_s_task_trains_with_three_files(project: Path) -> None:
    for name, content in FILES.items():
        (project / name).write_text(content.lstrip())
    run(project, "src/train.py", "experiment=tagging")
    [folder] = (project / "logs/train/runs").iterdir()
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    assert metrics["test/f1"] > 0.85  # every tag for every image gives (2/3 + 2/3 + 4/7) / 3 = 0.63
    run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_experiments.py", "-k", "tagging")
