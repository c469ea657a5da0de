"""A sweep's report: intervals, comparison, importance, the best config, and the page as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import open_dict

from fulgurite.config.compose import compose
from fulgurite.reporting.best_config import experiment_text
from fulgurite.reporting.report_cli import headline, main
from fulgurite.reporting.statistics import Paired, compare, seeds_needed, spread, t_cdf, t_quantile
from fulgurite.reporting.sweep_analysis import analyse_sweep
from fulgurite.runs.provenance import config_hash
from tests.support.browser import CHROMIUM, Browser
from tests.support.cli import read_json, run_cli
from tests.support.fake_sweep import leave_run, leave_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return leave_sweep(tmp_path / "sweep")


def test_quantiles_of_t_are_those_of_the_tables() -> None:
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 30: 2.0423, 120: 1.9799}
    assert {freedom: round(t_quantile(0.975, freedom), 4) for freedom in table} == table
    special = pytest.importorskip("scipy.special")
    for freedom in (1, 2, 5, 8, 40):
        assert t_cdf(1.3, freedom) == pytest.approx(special.stdtr(freedom, 1.3), abs=1e-12)


def test_an_interval_is_of_the_mean() -> None:
    of = spread([0.8, 0.9, 1.0])
    assert of.n == 3
    assert [of.mean, of.deviation] == pytest.approx([0.9, 0.1])
    assert of.half_width == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-5)
    assert spread([0.5]).half_width is None


def excludes_zero(paired: Paired) -> bool:
    assert paired.difference is not None
    assert paired.half_width is not None
    return abs(paired.difference) > paired.half_width


def test_seeds_that_both_share_are_compared_pair_by_pair() -> None:
    # the seed moves both by far more than they differ
    first = {"seed=1": 0.10, "seed=2": 0.50, "seed=3": 0.91, "seed=9": 0.0}
    second = {"seed=1": 0.09, "seed=2": 0.49, "seed=3": 0.90, "seed=8": 1.0}
    paired = compare(first, second)
    assert (paired.n, paired.more_seeds, excludes_zero(paired)) == (3, 0, True)
    assert paired.difference == pytest.approx(0.01)
    close = compare({"1": 0.2, "2": 0.1, "3": 0.3}, {"1": 0.1, "2": 0.15, "3": 0.2})
    assert not excludes_zero(close)
    assert close.more_seeds == seeds_needed(0.05, 0.0866025) - 3  # type: ignore[operator]
    assert compare({"1": 0.2}, {"1": 0.1}).half_width is None
    assert compare({"1": 0.2, "2": 0.2}, {"1": 0.2, "2": 0.2}).more_seeds is None


def test_the_suggested_number_of_seeds_has_the_stated_power() -> None:
    special = pytest.importorskip("scipy.special")
    for effect in (0.5, 1.0, 1.5):
        n = seeds_needed(effect, 1.0)
        assert n is not None

        def power(n: int, effect: float = effect) -> float:
            return float(1 - special.nctdtr(n - 1, effect * n**0.5, t_quantile(0.975, n - 1)))

        assert power(n) > 0.79
        assert power(n - 2) < 0.8


def test_groups_are_ranked_and_the_best_two_compared(sweep: Path) -> None:
    summary = analyse_sweep(sweep)
    assert (summary.metric, summary.mode) == ("val/acc_best", "max")
    assert [group.name for group in summary.groups] == [
        f"model.net.lin1_size={size} model.optimizer.lr={lr}" for size in (128, 64) for lr in (0.01, 0.1)
    ]
    best = summary.groups[0]
    assert (len(best.runs), best.spread("val/acc_best").n) == (5, 4)  # type: ignore[union-attr]
    assert summary.paired is not None
    assert summary.paired.n == 4
    assert summary.paired.difference == pytest.approx(0.0175)
    lines = headline(summary)
    assert lines[0] == "20 jobs in 4 groups, 1 failed"
    assert re.search(r"over 4 shared seeds \(95 %\): not significant yet, needs \d+ more seeds", lines[2])
    assert analyse_sweep(sweep, "val/loss").mode == "min"
    assert analyse_sweep(sweep, "val/loss").groups[0].name == best.name
    assert analyse_sweep(sweep, mode="min").groups[0].values != best.values


def test_importance_is_the_share_of_variance_and_chance_gets_none(tmp_path: Path) -> None:
    for job in range(24):
        lr, width = 10 ** (-1 - job % 6), (64, 128)[job // 12]
        leave_run(
            tmp_path / str(job), [f"lr={lr}", f"width={width}", f"seed={job}"], {"val/acc": -((job % 6 - 2) ** 2)}
        )
    importance = analyse_sweep(tmp_path).importance
    assert importance["lr"] == pytest.approx(1, abs=1e-6)
    assert importance["width"] == 0
    for job in range(9, 24):
        shutil.rmtree(tmp_path / str(job))
    assert analyse_sweep(tmp_path).importance == {}


def test_folds_form_groups_like_seeds_and_are_reported_to_share_data(tmp_path: Path) -> None:
    for job in range(6):
        leave_run(tmp_path / str(job), [f"lr={job // 3}", f"data.fold={job % 3}"], {"val/acc": 0.5 + job / 10})
    summary = analyse_sweep(tmp_path)
    assert [group.values for group in summary.groups] == [("lr=1",), ("lr=0",)]
    assert summary.groups[0].spread("val/acc").mean == pytest.approx(0.9)  # type: ignore[union-attr]
    assert "too narrow" in headline(summary)[-1]


def test_a_sweep_in_which_nothing_worked_has_a_report(tmp_path: Path) -> None:
    for job in range(3):
        leave_run(tmp_path / str(job), [f"lr={job}"], None, reason="out of memory")
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text().count("out of memory") == 6  # shown, and sorted by
    assert not (tmp_path / "best.yaml").exists()


def test_a_folder_above_a_sweep_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = leave_run(tmp_path / "run", [], {"val/acc": 0.5})
    assert headline(analyse_sweep(tmp_path))[0] == "1 job in 1 group"
    sweep = leave_sweep(tmp_path / "sweep")
    for folder, hint in {tmp_path: f"e.g. {sweep}", run: "which has one folder per job"}.items():
        assert main([str(folder)]) == 2
        line = f"error: {folder}: no job of a sweep has a readable run.json here. Name a sweep, {hint}.\n"
        assert capsys.readouterr().err == line
        assert not (folder / "report.html").exists()


def test_the_summary_is_printed_as_json(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["metric"], printed["mode"], len(printed["groups"])) == ("val/acc_best", "max", 4)
    assert printed["groups"][0]["values"] == ["model.net.lin1_size=128", "model.optimizer.lr=0.01"]
    assert printed["groups"][0]["metrics"]["val/acc_best"]["n"] == 4
    assert printed["groups"][0]["jobs"]["19"] == "failed"
    assert printed["best_two"]["difference"] == pytest.approx(0.0175)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--metric=val/ac_best"], "--metric=val/ac_best: no job has it"),
        (["--mode=up"], "--mode=up: choose from max, min"),
        (["metric=val/acc"], "metric=val/acc: not a folder. Pass --metric val/acc."),
        (["another"], "Name one sweep's folder"),
    ],
)
def test_bad_input_is_one_line(sweep: Path, argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), *argv]) == 2
    printed = capsys.readouterr().err
    assert line in printed
    assert printed.count("\n") == 1
    assert not (sweep / "report.html").exists()


OVERRIDES = (
    ["model.optimizer.lr=0.01", "+trainer.precision=bf16-mixed"],
    ["experiment=example", "data=mnist", "model.net.lin1_size=32", "+trainer.limit_train_batches=0.5"],
    ["~callbacks.early_stopping", "model=mnist_convnet", "++trainer.max_epochs=2", "logger=csv", "tags=[a]"],
)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=["values", "on top of an experiment", "groups and deletions"])
def test_the_best_config_composes_to_what_the_job_was(overrides: list[str], tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "best.yaml"
    file.parent.mkdir()
    file.write_text(experiment_text([*overrides, "seed=7"], ["Best."]))
    found = compose([f"hydra.searchpath=[file://{tmp_path}]", "experiment=best", "seed=7"], output_dir=tmp_path)
    wanted = compose([*overrides, "seed=7"], output_dir=tmp_path)
    if "~callbacks.early_stopping" in overrides:
        assert found.callbacks.early_stopping is None  # null switches it off
        with open_dict(found):
            del found.callbacks["early_stopping"]
    assert config_hash(found) == config_hash(wanted)


def test_the_best_config_has_only_the_differences_and_no_secret() -> None:
    overrides = [
        "model.optimizer.lr=1e-3",
        "seed=3",
        "data.fold=1",
        "data.num_folds=5",
        "logger=wandb",
        "model.api_key=s3cret",
    ]
    text = experiment_text(overrides, ["Best."])
    assert text.splitlines()[:2] == ["# @package _global_", "# Best."]
    assert yaml.safe_load(text) == {"model": {"optimizer": {"lr": 0.001}}}


def test_the_page_forbids_every_request_and_escapes_what_it_shows(sweep: Path) -> None:
    assert main([str(sweep)]) == 0
    page = (sweep / "report.html").read_text()
    assert "default-src 'none'; img-src data:" in page
    assert "&lt;b&gt;boom&lt;/b&gt;" in page
    assert "<b>boom" not in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert page.count("<img ") == 4


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on PATH, e.g. Debian's package chromium")
def test_the_page_renders_sorts_and_filters_in_a_browser_without_requests(sweep: Path, tmp_path: Path) -> None:
    assert main([str(sweep)]) == 0
    with Browser(tmp_path / "profile") as browser:
        browser.open(sweep / "report.html")
        pictures = browser.run("[...document.images].map(image => image.naturalWidth)")
        assert len(pictures) == 4
        assert min(pictures) > 200
        column = "[...document.querySelectorAll('#runs tbody tr:not([hidden])')].map(row => row.cells[{}].textContent)"
        assert browser.run(column.format(0))[:3] == ["15", "16", "17"]
        browser.run("document.querySelectorAll('#runs th button')[0].click()")
        assert browser.run(column.format(0)) == [str(job) for job in range(20)]
        browser.run("document.querySelectorAll('#runs th button')[6].click()")
        values = browser.run(column.format(6))
        assert values == [*sorted(values[:-1], key=float), "-"]
        browser.run("document.querySelectorAll('#runs th button')[6].click()")
        assert browser.run(column.format(6))[-1] == "-"
        browser.run("box = document.querySelector('#runs input'); box.value = 'seed=3 0.01'")
        browser.run("box.dispatchEvent(new Event('input'))")
        assert sorted(browser.run(column.format(0))) == ["18", "8"]
        browser.picture(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
        assert (browser.console_errors, browser.requests) == ([], [])
        # the check itself works: it finds an error and a request
        browser.run("console.error('seen'); fetch('file:///etc/hostname').catch(() => 0); 1")
        assert browser.run("document.title") == "Sweep sweep"
        assert any("seen" in line for line in browser.console_errors)


@pytest.mark.slow
def test_a_real_sweep_is_analysed_and_its_best_runs_again(tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "+trainer.limit_train_batches=4", "+trainer.limit_val_batches=2"]
    more = ["+trainer.limit_test_batches=2", "extras.print_config=false"]
    done = run_cli("train", "-m", "model.optimizer.lr=0.001,0.01", "seed=1,2", *short, *more, logs=tmp_path)
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "train" / "multiruns").iterdir()
    command = [sys.executable, "-m", "fulgurite", "report", str(sweep)]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("4 jobs in 2 groups\nbest: model.optimizer.lr=")
    assert "over 2 shared seeds" in output.stdout
    summary = analyse_sweep(sweep)
    assert summary.best is not None
    winner = summary.best.runs[0]
    (tmp_path / "experiment").mkdir()
    shutil.copy(sweep / "best.yaml", tmp_path / "experiment" / "best.yaml")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=best", f"seed={winner.values['seed']}"]
    again = run_cli("train", *overrides, "extras.print_config=false", f"hydra.run.dir={tmp_path}/again")
    assert again.returncode == 0, again.stderr
    assert read_json(tmp_path / "again" / "run.json")["config_hash"] == winner.record["config_hash"]
    assert read_json(tmp_path / "again" / "results.json")["metrics"] == winner.metrics
    listed = [
        sys.executable,
        "-m",
        "fulgurite",
        "runs",
        str(tmp_path),
        "--json",
        "--sort=val/acc_best",
    ]
    rows = json.loads(subprocess.run(listed, capture_output=True, text=True, check=True).stdout)
    assert len(rows) == 5
