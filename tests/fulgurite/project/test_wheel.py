"""The wheel, installed beside a small project: it trains, sweeps and resumes there; a vendored folder wins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.support.project import ROOT

MODEL = """
import torch
from lightning.pytorch import LightningModule


class Line(LightningModule):
    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test/loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
"""
DATA = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Points(LightningDataModule):
    def __init__(self, batch_size: int = 16):
        super().__init__()
        x = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
        self.points, self.batch_size = TensorDataset(x, x.sum(dim=1, keepdim=True)), batch_size

    def train_dataloader(self):
        return DataLoader(self.points, self.batch_size, shuffle=True)

    def test_dataloader(self):
        return DataLoader(self.points, self.batch_size)
"""
CONFIG = """
data: {_target_: src.data.Points}
model: {_target_: src.model.Line, lr: 0.01}
callbacks:
  last: {_target_: fulgurite.callbacks.LastCheckpoint, dirpath: "${paths.output_dir}/checkpoints"}
trainer: {_target_: lightning.pytorch.Trainer, max_epochs: 3, accelerator: cpu, enable_progress_bar: false}
logger: null
task_name: train
tags: [tiny]
seed: 1
train: true
test: true
ckpt_path: null
ckpt_sha256: null
optimized_metric: null
extras: {print_config: false}
resume: {run: null, mode: continue, reset: [], apply: []}
sweep: {resume: null, retry_failed: false, on_error: continue, dry_run: false}
paths:
  root_dir: ${oc.env:PROJECT_ROOT}
  data_dir: ${paths.root_dir}/data
  log_dir: ${paths.root_dir}/logs
  output_dir: ${hydra:runtime.output_dir}
  work_dir: ${hydra:runtime.cwd}
defaults: [_self_, override hydra/sweeper: grid]
hydra:
  run: {dir: "${paths.log_dir}/train/runs/${now:%Y-%m-%d}_${now:%H-%M-%S}"}
  sweep: {dir: "${paths.log_dir}/train/multiruns/sweep", subdir: "${hydra.job.num}"}
  callbacks: {reserve: {_target_: fulgurite.engine.run_directory_callback.ReserveRunDirectory}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "fulgurite", folder / "fulgurite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder / "dist"),
        str(folder),
    ]
    subprocess.run(build, check=True, timeout=300)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own, which borrows the dependencies from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    [site] = (folder / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=120)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the project: a model, a data module, configs, and the entry point."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("src", "configs"):
        (folder / name).mkdir()
    (folder / ".project-root").touch()
    (folder / "src/model.py").write_text(MODEL)
    (folder / "src/data.py").write_text(DATA)
    (folder / "configs/train.yaml").write_text(CONFIG)
    shutil.copy(ROOT / "src/train.py", folder / "src")
    return folder


def run(python: Path, project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project, with nothing of this repository on its path."""
    env = {name: value for name, value in os.environ.items() if name not in {"PROJECT_ROOT", "PYTHONPATH"}}
    env |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [python, *words], cwd=project, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def succeed(python: Path, project: Path, *words: str) -> str:
    """Run Python in the project and return its output; it must succeed."""
    done = run(python, project, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_library_and_its_plugins_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"fulgurite", "hydra_plugins"}
    held = {name for name in names if name.startswith("fulgurite/") and name.endswith(".py")}
    there = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "fulgurite").rglob("*.py") if "plugins" not in path.parts
    }
    assert held == there, "pyproject.toml lists the packages"
    plugins = {Path(name).name for name in names if name.startswith("hydra_plugins/")}
    assert plugins == {path.name for path in (ROOT / "fulgurite/plugins/hydra_plugins/fulgurite").glob("*.py")}
    conf = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fulgurite/conf").rglob("*.yaml")}
    assert conf <= set(names)


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    import fulgurite

    assert wheel.name.split("-")[1] == fulgurite.__version__


@pytest.mark.slow
def test_it_trains_sweeps_and_resumes_in_a_project_of_three_files(python: Path, project: Path) -> None:
    where = succeed(python, project, "-c", "import fulgurite; print(fulgurite.__file__)").strip()
    assert not Path(where).is_relative_to(ROOT)
    succeed(python, project, "src/train.py", "hydra.run.dir=logs/train/runs/one")
    one = project / "logs/train/runs/one"
    assert json.loads((one / "run.json").read_text())["status"] == "done"
    refused = run(python, project, "src/train.py", "model.lrr=1")
    assert (refused.returncode, "Did you mean 'model.lr'?" in refused.stderr) == (2, True), refused.stderr
    succeed(python, project, "src/train.py", f"resume={one}", "trainer.max_epochs=5")
    assert json.loads((one / "run.json").read_text())["resumed"]
    succeed(python, project, "src/train.py", "-m", "hydra/launcher=local", "hydra.launcher.slots=2", "seed=1,2")
    statuses = [
        json.loads((project / f"logs/train/multiruns/sweep/{n}/run.json").read_text())["status"] for n in (0, 1)
    ]
    assert statuses == ["done", "done"]
    rows = json.loads(succeed(python, project, "-m", "fulgurite", "runs", "--json"))
    assert len(rows) == 3


@pytest.mark.slow
def test_a_vendored_folder_wins_over_the_installed_package(python: Path, project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "vendored"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("logs"))
    shutil.copytree(ROOT / "fulgurite", copy / "fulgurite", ignore=shutil.ignore_patterns("__pycache__"))
    shown = "import hydra_plugins.fulgurite.grid as g, fulgurite, sys; print(fulgurite.__file__); print(g.__file__)"
    script = f"import sys; sys.path.insert(0, {str(copy)!r})\nfrom fulgurite.config.yaml_limits import guard_configs\n"
    lines = succeed(python, copy, "-c", f"{script}guard_configs()\n{shown}").split()
    assert [Path(line).is_relative_to(copy) for line in lines] == [True, True]
    succeed(python, copy, "src/train.py", "-m", "seed=1,2", "trainer.max_epochs=1")


@pytest.mark.slow
def test_a_bare_environment_gets_all_it_needs_from_the_wheel(wheel: Path, project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install: Sequence[str] = ["-m", "pip", "install", "--quiet", "-c", str(ROOT / "requirements.txt"), str(wheel)]
    subprocess.run([python, *install], check=True, timeout=580)
    succeed(python, project, "src/train.py", "hydra.run.dir=logs/train/runs/bare")
    assert "usage" in succeed(folder / "bin" / "fulgurite", project, "--help")
    assert yaml.safe_load((project / "logs/train/runs/bare/.hydra/config.yaml").read_text())["seed"] == 1
