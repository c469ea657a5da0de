"""A sweep's table: groups by the values that differ, seeds folded, failures counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.formatting import show_plan
from fulgurite.reporting.sweep_summary import conclude_sweep, describe_stop, planned_jobs, summarise


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


def test_seeds_are_folded_into_mean_deviation_and_interval(sweep: Path) -> None:
    first, second = summarise(sweep)
    assert (first.values, first.states) == (("lr=0.1",), {"done": 3})
    assert (second.values, second.states) == (("lr=0.2",), {"done": 2, "failed": 1})
    found = first.spread("test/acc"), second.spread("test/acc")
    assert [(of.mean, of.deviation) for of in found if of] == [
        pytest.approx((0.9, 0.1)),
        pytest.approx((0.6, 0.1414213562)),
    ]
    assert found[0] is not None
    assert found[0].half_width == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t(0.975, 2)
    assert second.spread("val/acc") is None


def test_one_job_has_no_interval(tmp_path: Path) -> None:
    job(tmp_path, 0, ["lr=0.1"], 0.25)
    [row] = summarise(tmp_path)
    found = row.spread("test/acc")
    assert found is not None
    assert (found.mean, found.deviation, found.half_width) == (0.25, None, None)


def test_the_table_is_printed_and_kept(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conclude_sweep(sweep)
    shown = capsys.readouterr().out
    assert "Sweep: mean ± half the 95 % interval over jobs" in shown
    assert "0.9 ± 0.25" in shown
    assert "3 (1 failed)" in shown
    assert "".join(shown.split()).endswith(f"report{'python -m fulgurite report'.replace(' ', '')}{sweep}")
    with (sweep / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["values"] for row in rows] == ["lr=0.1", "lr=0.2"]
    assert float(rows[1]["test/acc std"]) == pytest.approx(0.1414213562)


def searched(sweep: Path, config: str, direction: str | None = None) -> None:
    """Write what the config of a sweep says of its metric."""
    for folder in sweep.iterdir():
        if folder.is_dir():
            (folder / ".hydra/config.yaml").write_text(config)
    (sweep / "multirun.yaml").write_text(f"hydra: {{sweeper: {{direction: {direction or 'null'}}}}}")


@pytest.mark.parametrize(
    ("config", "direction", "leading", "best"),
    [
        ("optimized_metric: val/score", "minimize", "val/score", "b=1"),
        ("optimized_metric: val/score", "maximize", "val/score", "b=3"),
        ("optimized_metric: val/score", None, "val/score", "b=3"),
        ("optimized_metric: [val/loss, val/score]", "[minimize, maximize]", "val/loss", "b=2"),
        ("{monitor: val/loss, monitor_mode: min}", None, "val/loss", "b=2"),
        ("{monitor: val/score, monitor_mode: max}", None, "val/score_best", "b=2"),
    ],
)
def test_the_table_leads_with_the_optimised_metric_the_best_first(
    config: str, direction: str | None, leading: str, best: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ((1, 9.0, 0.0, 0.1), (2, 1.0, 0.5, 0.3), (3, float("nan"), 0.7, 0.2))
    for number, loss, score, highest in numbers:
        job(tmp_path, number, [f"b={number}"], 0.5)
        metrics = {"test/acc": 0.5, "val/loss": loss, "val/score": score, "val/score_best": highest}
        (tmp_path / str(number) / "results.json").write_text(json.dumps({"metrics": metrics, "weights": None}))
    searched(tmp_path, config, direction)
    conclude_sweep(tmp_path)
    _, _, heads, _, first, *others = capsys.readouterr().out.splitlines()
    assert heads.split("┃")[4].strip() == leading
    assert first.split()[1:4] == ["best", "│", best]
    assert not any("best" in line for line in others[:2])


def test_killed_is_not_failed_and_brackets_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job(tmp_path, 0, ["model.sizes=[red,4]", "seed=1"], 0.5)
    for number, status in ((1, "killed"), (2, "running"), (3, "failed"), (4, "pruned")):
        job(tmp_path, number, ["model.sizes=[red,4]", f"seed={number + 1}"], None)
        (tmp_path / str(number) / "run.json").write_text(json.dumps({"status": status}))
    job(tmp_path, 5, ["model.sizes=[bold]"], 0.4)
    conclude_sweep(tmp_path)
    shown = capsys.readouterr().out
    assert "5 (1 failed, 2 killed, 1 pruned)" in shown
    assert "model.sizes=[red,4]" in shown
    assert "model.sizes=[bold]" in shown
    show_plan([("0", "a=[red]", "to start")], ["b=[bold]"])
    shown = capsys.readouterr().out
    assert "a=[red]" in shown
    assert "b=[bold]" in shown


def test_no_column_vanishes_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"test/metric_{letter}" for letter in "abcdefgh"]
    for number in range(4):
        lr = f"model.optimizer.learning_rate={0.1 * (1 + number // 2)}"
        job(tmp_path, number, [lr, f"model.net.hidden_size={64 + number // 2}", f"seed={number}"], 0.5)
        metrics = dict.fromkeys(names, 0.5123 + 0.01 * number)
        (tmp_path / str(number) / "results.json").write_text(json.dumps({"metrics": metrics, "weights": None}))
    conclude_sweep(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    tables = [line for line in lines if line.startswith(("┃", "│", "┏", "└"))]
    assert all(len(line) <= 80 for line in tables)
    for name in names:
        assert any(name in line for line in tables)
    assert not any("…" in line for line in tables)
    assert sum(line.count("0.5173 ± 0.064") for line in tables) == len(names)


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
    assert (len(row.runs), row.states["failed"], row.metrics) == (2, 0, {"test/acc": [0.5]})
