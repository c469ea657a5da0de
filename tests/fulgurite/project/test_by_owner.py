"""Shipped files are held to the template's rules; files of a user and edited ones are held to less."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.by_owner import LIST, shipped_paths
from tests.support.project import ROOT, check_options

UNTYPED = '"""A module."""\n\n\ndef double(x):\n    return 2 * x\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a repository with a shipped file and the list of it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "src").mkdir()
    shutil.copy(ROOT / "scripts/by_owner.py", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src/shipped.py").write_text('"""A module."""\n')
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert by_owner(tmp_path, "--write").returncode == 0
    return tmp_path


def by_owner(project: Path, *arguments: str, house: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script in a project."""
    command = [sys.executable, "scripts/by_owner.py", *arguments]
    env = {**os.environ, "HOUSE": house}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


def test_a_file_is_shipped_until_it_is_edited_and_a_new_one_never_is(project: Path) -> None:
    (project / "src/yours.py").write_text(UNTYPED)
    words = ["echo shipped:", "echo yours:", "src/*.py"]
    assert by_owner(project, *words).stdout == "shipped: src/shipped.py\nyours: src/yours.py\n"
    (project / "src/shipped.py").write_bytes(b'"""A module."""\r\n')  # as git checks it out on Windows
    assert by_owner(project, *words).stdout.startswith("shipped: src/shipped.py\n")
    (project / "src/shipped.py").write_text(UNTYPED)
    assert by_owner(project, *words).stdout == "yours: src/shipped.py src/yours.py\n"
    assert by_owner(project, *words, house="1").stdout == "shipped: src/shipped.py\nyours: src/yours.py\n"


def test_your_file_is_held_to_ruffs_defaults(project: Path) -> None:
    ruff = f"'{sys.executable}' -m ruff check --no-cache"
    words = [ruff, f"{ruff} --isolated", "src/*.py"]
    (project / "src/yours.py").write_text(UNTYPED)
    assert by_owner(project, *words).returncode == 0
    (project / "src/yours.py").write_text("import os\n")
    done = by_owner(project, *words)
    assert (done.returncode, "F401" in done.stdout) == (1, True)
    (project / "src/yours.py").unlink()
    (project / "src/shipped.py").write_text(UNTYPED)
    done = by_owner(project, *words, house="1")
    assert (done.returncode, "ANN001" in done.stdout) == (1, True)


# what nearly every project with Lightning has
IDIOMS = """
from typing import Any, Dict, Optional
import torch
from lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, Dataset


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train: Optional[Dataset] = None

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data_train, batch_size=self.hparams.batch_size)


class Lit(LightningModule):
    def __init__(self, net: torch.nn.Module, scheduler: torch.optim.lr_scheduler) -> None:
        super().__init__()
        self.net = net

        self.outputs = []

    def validation_step(self, batch: Any, batch_idx: int) -> Optional[torch.Tensor]:
        self.log("val/loss", self.net(batch).mean())

    def setup(self, stage: str) -> None:
        if self.hparams.compile:
            self.net = torch.compile(self.net)

    def configure_optimizers(self) -> Dict[str, Any]:
        return {"optimizer": self.hparams.optimizer(params=self.trainer.model.parameters())}
"""


@pytest.mark.slow  # reads the types of torch
def test_your_code_is_held_to_types_as_projects_with_lightning_write_them(project: Path) -> None:
    yours, words = project / "src/yours.py", [sys.executable, "-m", *check_options("YOUR_MYPY").split(), "src/yours.py"]
    for text, found in ((IDIOMS, ""), (f"{IDIOMS}\n\nLit(nett=3)\n", "[call-arg]"), ("a: int = b\n", "[name-defined]")):
        yours.write_text(text)
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
        assert (done.returncode == 0, found in done.stdout) == (not found, True), done.stdout


def test_your_code_may_have_the_typing_of_older_projects(tmp_path: Path) -> None:
    yours, words = tmp_path / "yours.py", [sys.executable, "-m", *check_options("YOUR_RUFF").split(), "yours.py"]
    old = f"{IDIOMS}\n\ndef size(of: Dict[str, int] = None) -> int:\n    return len(of or {{}})\n"
    for text, found in ((old, ""), (f"{old}\nprint(sizes)\n", "F821")):
        yours.write_text(
            text.replace("import torch\n", "\nimport torch\nimport torch.nn as nn\n").replace("torch.nn.M", "nn.M")
        )
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0, found in done.stdout) == (not found, True), done.stdout


def test_your_yaml_is_held_to_what_breaks_a_config(project: Path) -> None:
    yours, words = project / "src/yours.yaml", ["yamllint --strict", "", "src/*.yaml"]
    words[:2] = (f"'{sys.executable}' -m {command}" for command in (words[0], check_options("YOUR_YAMLLINT")))
    yours.write_text("a:   {b:  1,c: 2 }   \nd:\n- 1\nlong: " + "x " * 200 + "\n\n\n")
    assert by_owner(project, *words).returncode == 0
    yours.write_text("a: 1\na: 2\n")
    done = by_owner(project, *words)
    assert (done.returncode, "duplication of key" in done.stdout) == (1, True)
    yours.write_text("a:  1\n")
    subprocess.run(["git", "add", "src/yours.yaml"], cwd=project, check=True)
    assert by_owner(project, *words, house="1").returncode == 1


def test_a_shipped_file_that_you_edit_meets_what_your_files_are_held_to() -> None:
    files = [path for path in shipped_paths() if path.endswith(".py")]
    options = check_options("YOUR_RUFF").split()
    command = [sys.executable, "-m", *options, "--no-cache", "--output-format=concise", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_make_check_and_the_hooks_hold_your_files_to_the_same() -> None:
    hooks = " ".join((ROOT / ".pre-commit-config.yaml").read_text().split())
    for name in ("YOUR_RUFF", "YOUR_MYPY", "YOUR_YAMLLINT"):
        assert check_options(name) in hooks


def test_the_list_has_each_file_once_and_a_release_requires_it_to_be_that_of_its_commit(project: Path) -> None:
    blobs, paths = zip(*(line.split(" ", 1) for line in LIST.read_text().splitlines()), strict=True)
    assert {len(blob) for blob in blobs} == {40}
    assert list(paths) == sorted(set(paths))
    assert "src/train.py" in paths
    (project / "src/shipped.py").write_text(UNTYPED)
    subprocess.run(["git", "add", "src/shipped.py"], cwd=project, check=True)
    before = (project / "scripts/shipped.txt").read_text()
    assert by_owner(project, "--write").returncode == 0
    assert (project / "scripts/shipped.txt").read_text() != before
    command = "python3 scripts/by_owner.py --write && git diff --exit-code scripts/shipped.txt"
    assert command in (ROOT / ".github/workflows/release.yaml").read_text()


def test_too_few_arguments_are_answered_with_the_usage(project: Path) -> None:
    done = by_owner(project, "echo")
    assert done.returncode == 1
    assert done.stderr.startswith("Separate the files")
