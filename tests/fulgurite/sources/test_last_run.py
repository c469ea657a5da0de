"""`resume=last` finds the newest run and composes it from its copies, whether or not the sources answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import fulgurite
from fulgurite.core.context import current_context
from fulgurite.core.project import project_root
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.sources.answers import forget_answers, save_snapshot
from tests.support.project import CONFIGS
from tests.support.servers.doubles import double

FILES = {"model/big.yaml": b"defaults: [mnist]\nnet: {lin1_size: 77}\n"}
NEEDS_IT = "  - override /model: big\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a project with the configs of this one, and a killed run."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / ".project-root").touch()
    run = tmp_path / "logs/train/runs/2026-01-01_00-00-00"
    (run / ".hydra").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").touch()
    (run / "run.json").write_text(json.dumps({"status": "killed", "exit_code": None}))
    (run / ".hydra/overrides.yaml").write_text("[]\n")
    (run / ".hydra/hydra.yaml").write_text("hydra: {overrides: {hydra: [], task: []}, job: {config_name: train}}\n")
    monkeypatch.setenv("PROJECT_ROOT", str(tmp_path))
    project_root.cache_clear()
    forget_answers()
    yield tmp_path
    project_root.cache_clear()
    forget_answers()


def add_source(project: Path, address: str, entry: str) -> None:
    """Let the project's own config name a source."""
    file = project / "configs/train.yaml"
    text = file.read_text().replace("  - run\n", f"  - run\n{entry}", 1)
    file.write_text(f"{text}\nhydra:\n  searchpath: ['{address}#max_retry=0&timeout=5']\ntrust: ['{address}']\n")


@pytest.mark.parametrize("entry", ["", NEEDS_IT])
def test_the_last_run_is_found_and_composed_without_its_sources(
    entry: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = (project / "logs/train/runs").iterdir()
    with double("http", FILES) as server:
        add_source(project, f"{server.url}/conf", entry)
        first = fulgurite.compose([], output_dir=run)
        save_snapshot(run / ".hydra/sources")
        asked = len(server.requests)
        assert f"resume.run='{run}'" in expand_shorthands(["resume=last"], "train")
        assert len(server.requests) == asked
    assert (first.model.net.lin1_size == 77) == bool(entry)
    for _ in range(2):
        current_context().snapshot = None
        assert f"resume.run='{run}'" in expand_shorthands(["resume=last"], "train")
    assert current_context().snapshot == run / ".hydra/sources"
    with_copies = fulgurite.compose([], output_dir=run, sources_of=run)
    assert with_copies == first
    assert "warning" not in capsys.readouterr().err


def test_without_a_run_the_sources_are_asked_where_runs_are(project: Path) -> None:
    [run] = (project / "logs/train/runs").iterdir()
    run.parents[2].rename(project / "elsewhere")
    files = {"paths/far.yaml": f"defaults: [default]\nlog_dir: {project}/elsewhere\n".encode()}
    with double("http", files) as server:
        add_source(project, f"{server.url}/conf", "  - override /paths: far\n")
        expanded = expand_shorthands(["resume=last"], "train")
        assert server.requests
    assert f"resume.run='{project}/elsewhere/train/runs/{run.name}'" in expanded
