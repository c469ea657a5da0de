"""The notebook is clean in the repository, and shows a real run when it is executed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.support.cli import only_run, read_json, run_cli
from tests.support.project import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPLORE = ROOT / "notebooks" / "01-explore-a-run.ipynb"
SMALL_RUN = ("trainer.max_epochs=2", "+trainer.limit_train_batches=20", "extras.print_config=false")


def execute(path: Path) -> dict[str, str]:
    """Execute a notebook in the folder it lies in, and return its printed text and the kinds of its other outputs."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # as nbformat has it
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    outputs: list[dict[str, Any]] = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return {
        "text": "".join(out["text"] for out in outputs if out.get("name") == "stdout"),
        "errors": "".join(out["text"] for out in outputs if out.get("name") == "stderr"),
        "pictures": " ".join(kind for out in outputs for kind in out.get("data", {}) if kind == "image/png"),
    }


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made by the command a user types."""
    logs = tmp_path_factory.mktemp("logs")
    done = run_cli("train", *SMALL_RUN, logs=logs)
    assert done.returncode == 0, done.stderr
    return only_run(logs)


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "nbstripout", "--verify", str(path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


@pytest.mark.slow
def test_the_notebook_shows_the_run_it_is_given(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_DIR", str(run_dir))
    shown = execute(EXPLORE)
    results = read_json(run_dir / "results.json")["metrics"]
    assert f"run        {run_dir}" in shown["text"]
    for name, value in results.items():
        assert f"{name:<14} {value:.4f}" in shown["text"]
    # counted again from the loaded weights and the loaded data
    assert f"accuracy on 500 test images: {results['test/acc']:.6f}" in shown["text"]
    assert f"right: {round(500 * results['test/acc'])} of 500" in shown["text"]
    assert shown["pictures"].split() == ["image/png"] * 3  # curves, predictions, confusion
    assert shown["errors"] == ""


@pytest.mark.slow
def test_without_runs_the_notebook_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUN_DIR", raising=False)
    for name in ("src", "fulgurite", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / ".project-root").touch()
    shutil.copy(EXPLORE, tmp_path / "notebooks")
    monkeypatch.setenv("PROJECT_ROOT", str(tmp_path))
    with pytest.raises(CellExecutionError, match="holds no finished run; make one with: make train"):
        execute(tmp_path / "notebooks" / EXPLORE.name)
