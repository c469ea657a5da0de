"""Searches: bounds are validated before the first trial, failures and pruning are recorded, the best is written."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import optuna
import pytest
import yaml
from omegaconf import OmegaConf

from fulgurite.core.errors import ConfigError
from fulgurite.reporting.sweep_analysis import analyse_sweep
from fulgurite.search.space import SearchSpace, read_space
from tests.support import postgres
from tests.support.cli import read_json, run_cli
from tests.support.search import events, only_sweep, search, start, trial_results, values_of


def space(*overrides: str, **params: str) -> SearchSpace:
    """Return the search space of overrides and of the sweeper's params."""
    return read_space(overrides, OmegaConf.create({"params": params}))


def test_boundary_points_have_each_choice_and_both_bounds() -> None:
    found = space("a=choice(1,y,x)", "b=interval(1,9)", "seed=3", "sweep.resume=last", c="range(0,10,4)", b="7")
    assert found.fixed == ("seed=3",)
    assert found.boundary_points() == [
        ("c=0", "a=1", "b=1.0", "seed=3"),
        ("c=8", "a=1", "b=1.0", "seed=3"),
        ("c=0", "a=y", "b=1.0", "seed=3"),
        ("c=0", "a=x", "b=1.0", "seed=3"),
        ("c=0", "a=1", "b=9.0", "seed=3"),
    ]
    assert space("b=7", b="interval(1,9)").boundary_points() == [("b=7",)], (
        "a value on the command line wins over the space"
    )
    assert space("lr=tag(log,interval(0.1,1))").boundary_points() == [("lr=0.1",), ("lr=1.0",)]


def test_a_grid_of_all_values_is_taken_from_choices_and_ranges_only() -> None:
    assert space("a=range(1,4)", "b=range(0,1,0.5)", "c=choice(x,y)").grid() == {
        "a": [1, 2, 3],
        "b": [0.0, 0.5],
        "c": ["x", "y"],
    }
    with pytest.raises(ConfigError, match="lr: an interval has infinitely many values"):
        space("lr=interval(0.1,1)").grid()


def test_all_errors_of_a_space_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        space("a=interval(5,1)", "b=interval(", c="glob(*)")
    assert len(error.value.findings) == 3


PASSWORD = "geheim"
WRONG = "model.optimizer.lr=interval(-1.0,0.1)", "data.batch_size=choice(0,16)"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (WRONG, ["data.batch_size=0: "]),
        (("model.optimizer.lrr=interval(0.1,1)",), ["Did you mean 'model.optimizer.lr'"]),
        (
            ("hydra.sweeper.n_trials=0", "hydra.sweeper.direction=max", "hydra.sweeper.max_failure_rate=2"),
            ["n_trials=0: must be an integer", "direction=max: must be minimize", "max_failure_rate=2: must be"],
        ),
        (("optimized_metric=null",), ["optimized_metric=null: is not set. Set the metric of the search"]),
        (
            ("optimized_metric=test/acc", "hydra.sweeper.pruner={_target_: optuna.pruners.MedianPruner}"),
            ["optuna.pruners.MedianPruner}: optimized_metric=test/acc is not known during training"],
        ),
        (("sweep.resume=last",), ["sweep.resume=last: ", "contains no sweep"]),
    ],
    ids=["values", "key", "settings", "metric", "pruner", "resume"],
)
@pytest.mark.slow
def test_a_search_that_cannot_be_run_is_refused_before_a_folder_is_made(
    tmp_path: Path, given: tuple[str, ...], expected: list[str]
) -> None:
    end = start(tmp_path, search(tmp_path, *given))
    assert end.returncode == 2, end.stderr
    assert all(line.startswith("error: ") for line in end.stderr.splitlines())
    for part in expected:
        assert part in end.stderr
    assert not (tmp_path / "logs").exists()


def test_a_dry_run_shows_the_space_and_makes_no_folder(tmp_path: Path) -> None:
    end = start(tmp_path, search(tmp_path, "--dry-run"))
    assert end.returncode == 0, end.stderr
    assert "Search: 6 trials, maximize" in end.stdout
    rows = [line.split() for line in end.stdout.splitlines() if "choice(" in line or "interval(" in line]
    assert [row[1] for row in rows] == ["model.optimizer.lr", "data.batch_size"]
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_the_search_of_the_template_writes_its_best(tmp_path: Path) -> None:
    removed = ("sweeper", "interval", "choice", "optimized_metric")
    overrides = [item for item in search(tmp_path) if not any(part in item for part in removed)]
    given = [
        *overrides,
        "hparams_search=mnist_optuna",
        "experiment=example",
        "hydra.sweeper.n_trials=3",
        "trainer.max_epochs=2",
    ]
    assert (end := start(tmp_path, given)).returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    values = [read_json(sweep / str(job) / "results.json")["metrics"]["val/acc_best"] for job in range(3)]
    assert (analyse_sweep(sweep).metric, analyse_sweep(sweep).mode) == ("val/acc_best", "max")
    assert best["name"] == "optuna"
    assert best["best_value"] == max(values)
    assert set(best["best_params"]) == {
        "model.optimizer.lr",
        "data.batch_size",
        "model.net.lin1_size",
        "model.net.lin2_size",
        "model.net.lin3_size",
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_stops_when_too_many_of_its_trials_fail(tmp_path: Path) -> None:
    given = search(tmp_path, n_trials=6, t0="raise", t1="raise", t2="raise", t3="raise", t4="raise", t5="raise")
    end = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    assert end.returncode == 1
    assert [state for state, _ in trial_results(sweep).values()] == ["FAIL"] * 4
    assert "no trial was completed: 4 of 4 failed; trial 0 failed: ValueError: a fault that passes" in end.stderr
    assert "more than hydra.sweeper.max_failure_rate=0.5 of 6 trials failed" in end.stderr
    assert "Error executing job" not in end.stderr, "a line of Hydra with all overrides of the trial"
    assert not (sweep / "optimization_results.yaml").exists()


@pytest.mark.slow
def test_a_trial_whose_metric_is_not_a_number_has_failed(tmp_path: Path) -> None:
    given = search(tmp_path, "callbacks.nan_guard=null", n_trials=3, t1="spoil")
    given = [override.replace("optimized_metric=val/acc", "optimized_metric=val/loss") for override in given]
    end = start(tmp_path, given)
    assert end.returncode == 1
    sweep = only_sweep(tmp_path)
    assert trial_results(sweep)[1] == ("FAIL", "val/loss is nan")
    assert read_json(sweep / "1/run.json")["status"] == "done"
    assert [trial_results(sweep)[job][0] for job in (0, 2)] == ["COMPLETE", "COMPLETE"]
    assert "error: trial 1 failed: val/loss is nan. Pass sweep.retry_failed=true to retry.\n" in end.stderr


PRUNER = "hydra.sweeper.pruner={_target_: optuna.pruners.ThresholdPruner, upper: 5.0, n_warmup_steps: 1}"
BAD = "model.optimizer.lr=choice(1.0,0.002)"


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_sim", "ddp_spawn"])
@pytest.mark.timeout(300)
def test_a_trial_is_pruned(tmp_path: Path, trainer: str) -> None:
    given = search(
        tmp_path, PRUNER, BAD, "data.batch_size=16", "hydra/sweeper/sampler=grid", f"trainer={trainer}", n_trials=5
    )
    given = [item.replace("val/acc", "val/loss").replace("maximize", "minimize") for item in given]
    given = [item for item in given if "sampler." not in item]
    given = [*given, "trainer.max_epochs=4", "seed=3"]
    end = run_cli("train", *given, logs=tmp_path / "logs")
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    by_lr = {values_of(sweep / job)["model.optimizer.lr"]: job for job in "01"}
    pruned, good = by_lr["1.0"], by_lr["0.002"]
    record = read_json(sweep / pruned / "run.json")
    assert (record["status"], record["exit_code"]) == ("pruned", 0)
    assert re.fullmatch(r"val/loss \S+ after epoch 1", record["reason"])
    assert record["ranks"] == (1 if trainer == "cpu" else 2)
    rows = (sweep / pruned / "metrics.csv").read_text().splitlines()
    assert len(rows) - 1 <= 2 * 2, "two of four epochs"
    assert trial_results(sweep)[int(pruned)] == ("PRUNED", record["reason"])
    assert trial_results(sweep)[int(good)][0] == "COMPLETE"
    assert events(sweep, "pruned") == [("pruned", int(pruned))]
    assert not (sweep / "2").exists(), "a grid of two values has two trials"
    assert not (sweep / pruned / "ranks").exists()


@pytest.mark.slow
def test_a_search_with_two_metrics_writes_the_pareto_front(tmp_path: Path) -> None:
    given = search(tmp_path, "hydra.sweeper.direction=[maximize,minimize]", n_trials=4)
    given = [override.replace("optimized_metric=val/acc", "optimized_metric=[val/acc,val/loss]") for override in given]
    given.remove("hydra.sweeper.direction=maximize")
    assert (end := start(tmp_path, given)).returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    front = yaml.safe_load((sweep / "optimization_results.yaml").read_text())["solutions"]
    pairs = [tuple(values) for _, values in trial_results(sweep).values()]
    assert len(pairs) == 4
    unbeaten = {pair for pair in pairs if not any(o != pair and o[0] >= pair[0] and o[1] <= pair[1] for o in pairs)}
    assert {tuple(one["values"]) for one in front} == unbeaten


@pytest.mark.slow
def test_two_processes_of_a_trial_have_its_values(tmp_path: Path) -> None:
    given = search(tmp_path, "trainer=ddp_sim", n_trials=2)
    end = run_cli("train", *given, logs=tmp_path / "logs")
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    assert [read_json(sweep / job / "run.json")["ranks"] for job in "01"] == [2, 2]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    marks = {path.name for path in (tmp_path / "marks").iterdir()}
    assert marks == {f"{job}-rank{rank}" for job in (0, 1) for rank in (0, 1)}
    assert events(sweep, "started", "done") == [("started", 0), ("done", 0), ("started", 1), ("done", 1)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not())
def test_a_study_in_postgresql_resumes_and_its_url_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.server() as url:
        monkeypatch.setenv("STUDY_DB", url)
        pruner = "hydra.sweeper.pruner={_target_: optuna.pruners.MedianPruner}"
        given = search(tmp_path, "hydra.sweeper.storage=${oc.env:STUDY_DB}", pruner, n_trials=3, t1="SIGKILL")
        start(tmp_path, given)
        again = start(tmp_path, given, "sweep.resume=last")
        assert again.returncode == 0, again.stderr
        sweep = only_sweep(tmp_path)
        assert sorted(trial_results(sweep)) == [0, 1, 2]
        study = optuna.load_study(
            study_name=f"train/{sweep.name}", storage=url.replace("postgresql", "postgresql+psycopg2", 1)
        )
        assert [trial.state.name for trial in study.trials] == [state for state, _ in trial_results(sweep).values()]
        assert all(trial.intermediate_values for trial in study.trials)
        assert not (sweep / "study.db").exists()
    holding = [path for path in sweep.rglob("*") if path.is_file() and url.encode() in path.read_bytes()]
    assert holding == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "sqlite:////nowhere/study.db",
            "hydra.sweeper.storage: sqlite cannot be opened: unable to open database file. ",
        ),
        (f"oracle://a:{PASSWORD}@b/c", "hydra.sweeper.storage: the driver for oracle is not installed. Install it."),
        (
            f"postgresql://a:{PASSWORD}@127.0.0.1:9/b",
            "hydra.sweeper.storage: postgresql+psycopg2 cannot be opened: connection to server at"
            if importlib.util.find_spec("psycopg2")
            else "hydra.sweeper.storage: the driver for postgresql+psycopg2 is not installed. Run `pip install",
        ),
        ("nonsense", "hydra.sweeper.storage: nonsense cannot be opened: "),
    ],
)
def test_a_storage_that_cannot_be_used_is_reported_in_one_line(tmp_path: Path, url: str, expected: str) -> None:
    end = start(tmp_path, search(tmp_path, f"hydra.sweeper.storage={url}"))
    assert end.returncode == 2
    [line] = [line for line in end.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {expected}")
    assert PASSWORD not in line
