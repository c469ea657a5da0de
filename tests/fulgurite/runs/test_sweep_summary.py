"""A sweep's table: groups by the values that differ, seeds folded, failures counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.runs.sweep_summary import conclude_sweep, describe_stop, planned_jobs, summarise


def job(sweep: Path, number: int, overrides: list[str], acc: float | None) -> None:
    """Write what a job leaves; `acc` None is a job that failed."""
    folder = sweep / str(number)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    (folder / "run.json").write_text(json.dumps({"status": "failed" if acc is None else "done"}))
    if acc is not None:
        (folder / "results.json").write_text(json.dumps({"metrics": {"test/acc": acc}, "weights": None}))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two learning rates, three seeds each; one job failed. Twelve jobs would sort 10 before 2 as text."""
    accuracies = [0.8, 0.9, 1.0, 0.5, 0.7, None]
    for number, acc in enumerate(accuracies):
        lr = "lr=0.1" if number < 3 else "lr=0.2"
        job(tmp_path, number + 8, ["logger=csv", lr, f"seed={number % 3}"], acc)
    return tmp_path


def test_seeds_are_folded_into_mean_and_sample_deviation(sweep: Path) -> None:
    first, second = summarise(sweep)
    assert (first.values, len(first.runs), first.failed) == (("lr=0.1",), 3, 0)
    assert first.mean_and_deviation("test/acc") == pytest.approx((0.9, 0.1))
    assert (second.values, len(second.runs), second.failed) == (("lr=0.2",), 3, 1)
    assert second.mean_and_deviation("test/acc") == pytest.approx((0.6, 0.1414213562))
    assert second.mean_and_deviation("val/acc") is None


def test_one_job_has_no_deviation(tmp_path: Path) -> None:
    job(tmp_path, 0, ["lr=0.1"], 0.25)
    [row] = summarise(tmp_path)
    assert row.mean_and_deviation("test/acc") == (0.25, None)


def test_the_table_is_printed_and_kept(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conclude_sweep(sweep)
    shown = capsys.readouterr().out
    assert "0.9000 ± 0.1000" in shown
    assert "3 (1 failed)" in shown
    with (sweep / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["values"] for row in rows] == ["lr=0.1", "lr=0.2"]
    assert float(rows[1]["test/acc std"]) == pytest.approx(0.1414213562)


def test_a_sweep_that_ran_nothing_has_no_rows(tmp_path: Path) -> None:
    assert summarise(tmp_path) == []


BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def plan(overrides: list[str], **sweeper: object) -> DictConfig:
    """Return what a sweep's config says of its jobs."""
    return OmegaConf.create(
        {"hydra": {"sweeper": {"_target_": BASIC, **sweeper}, "overrides": {"task": overrides}}},
    )


def test_a_stopped_sweep_reports_what_was_done_and_how_many_jobs_were_not_started(tmp_path: Path) -> None:
    for number, status in enumerate(["done", "failed", "killed"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(json.dumps({"status": status}))
    line = describe_stop(tmp_path, plan(["seed=range(5)", "logger=csv", "model.lr=1,2"]), "SIGTERM")
    assert line == "sweep stopped by SIGTERM: 1 job done, job 1 failed, job 2 killed, 7 not started"
    assert describe_stop(tmp_path, plan(["experiment=glob(*)"]), "SIGINT").endswith(
        "job 2 killed, the others not started"
    )


def test_the_jobs_of_a_sweep_are_counted_where_its_sweeper_knows_them() -> None:
    assert planned_jobs(plan(["a=1,2,3"], params={"b": "range(4)"})) == 12
    assert planned_jobs(plan(["a=1"], _target_="an.OptunaSweeper", n_trials=20)) == 20
    assert planned_jobs(plan(["a=1"], _target_="another.Sweeper")) is None


def test_a_job_that_is_done_without_results_is_counted(tmp_path: Path) -> None:
    job(tmp_path, 0, ["seed=1"], 0.5)
    job(tmp_path, 1, ["seed=2"], 0.7)
    (tmp_path / "1" / "results.json").unlink()
    [row] = summarise(tmp_path)
    assert (len(row.runs), row.failed, row.metrics) == (2, 0, {"test/acc": [0.5]})
