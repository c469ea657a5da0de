"""Run directories that an earlier version wrote are read, reported, evaluated and resumed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

import fulgurite
from fulgurite.__main__ import main
from tests.support.cli import read_json, run_cli

# written by version 0.1.0: a sweep of two jobs, and a run that was killed after 9 of 18 optimizer steps
RELEASED = Path(__file__).parent / "run_directories"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Copy the directories: reading them must not depend on where they are, and resuming changes them."""
    return Path(shutil.copytree(RELEASED, tmp_path / "released"))


def test_runs_lists_them_with_their_status(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(released), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["status"] for row in rows) == ["done", "done", "killed"]


def test_report_analyses_the_sweep(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(released / "sweep")]) == 0
    assert "2 jobs in 1 group" in capsys.readouterr().out
    assert (released / "sweep/report.html").is_file()


def test_load_run_reads_them_and_builds_their_model(released: Path) -> None:
    run = fulgurite.load_run(released / "sweep/0")
    numbers = "".join(f", test/{name} {run.results['metrics'][f'test/{name}']:.4g}" for name in ("acc", "loss"))
    assert repr(run) == f"SavedRun({released}/sweep/0: done{numbers})"
    assert run.record["status"] == "done"
    assert run.results["metrics"]["test/acc"] == 0.25
    assert len(run.metrics) == 3
    assert sum(parameter.numel() for parameter in run.model().parameters()) == run.record["parameters"]["total"]
    assert run.datamodule() is not None


def test_load_run_says_how_a_run_ended_and_what_it_cannot_read(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fulgurite.load_run(released / "killed")
    assert run.record["status"] == "killed"  # run.json says running
    assert repr(run) == f"SavedRun({released}/killed: killed)"
    record = released / "killed/run.json"
    record.write_text("{")
    for path, wrong in {record.parent: "has no readable run.json", record: "is a file, not a folder"}.items():
        with pytest.raises(fulgurite.UserError, match=f"^{path}: {wrong}. Pass a run directory"):
            fulgurite.load_run(path)
    assert f"{record.parent}: run.json is not readable" in capsys.readouterr().err


def test_eval_repeats_the_numbers_of_the_run(released: Path, tmp_path: Path) -> None:
    done = run_cli("eval", f"run={released / 'sweep/0'}", logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "logs/eval/runs").iterdir()
    metrics, before = (read_json(path / "results.json")["metrics"] for path in (folder, released / "sweep/0"))
    assert metrics["test/acc"] == before["test/acc"]
    assert math.isclose(metrics["test/loss"], before["test/loss"], rel_tol=1e-5)


def test_a_killed_run_resumes_in_place(released: Path) -> None:
    done = run_cli("train", f"resume={released / 'killed'}")
    assert done.returncode == 0, done.stderr
    record = read_json(released / "killed/run.json")
    assert record["status"] == "done"
    assert record["resumed"][0]["step"] == 6, "the newest checkpoint that the kill left"
    rows = (released / "killed/metrics.csv").read_text().splitlines()
    assert len(rows) == len(set(rows))
