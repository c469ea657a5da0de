"""Settings of a search: samplers, the older form of the space, and functions that suggest further values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from omegaconf import DictConfig

from fulgurite.core.errors import ConfigError
from tests.support.cli import run_cli
from tests.support.compose import findings, with_file
from tests.support.project import ROOT
from tests.support.search import SPACE, only_sweep, search, start, trial_results, values_of

RATES = ("model.optimizer.lr=interval(0.001,0.05)", "model.optimizer.weight_decay=interval(0.0,0.01)")
CHOICES = ("model.optimizer.lr=choice(0.001,0.01)", "data.batch_size=choice(16,32)")


def suggest_decay(cfg: DictConfig, trial: Any) -> None:
    """Suggest a weight decay between 0.001 and 0.001 * (n_trials + 1)."""
    trial.suggest_float("model.optimizer.weight_decay", 0.001, 0.001 * (cfg.hydra.sweeper.n_trials + 1))


def without_sampler(given: list[str]) -> list[str]:
    """Return a command without the settings of the default sampler."""
    return [override for override in given if not override.startswith("hydra.sweeper.sampler.")]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("sampler", "overrides", "mark"),
    [
        (("hydra/sweeper/sampler=cmaes", "hydra.sweeper.sampler.seed=7"), RATES, "cma"),
        (("hydra/sweeper/sampler=nsgaii", "hydra.sweeper.sampler.population_size=2"), SPACE, "generation"),
        (("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=7"), SPACE, None),
        (("hydra/sweeper/sampler=grid",), CHOICES, "grid_id"),
    ],
    ids=["cmaes", "nsgaii", "random", "grid"],
)
def test_a_search_uses_the_sampler_of_its_config(
    tmp_path: Path, sampler: tuple[str, ...], overrides: tuple[str, ...], mark: str | None
) -> None:
    given = without_sampler(search(tmp_path, *overrides, "trainer.max_epochs=1", n_trials=4))
    end = start(tmp_path, [*given, *sampler])
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    assert [state for state, _ in trial_results(sweep).values()] == ["COMPLETE"] * 4
    study = optuna.load_study(study_name=f"train/{sweep.name}", storage=f"sqlite:///{sweep}/study.db")
    notes = {name for trial in study.trials for name in trial.system_attrs}
    if mark is not None:
        assert any(mark in name for name in notes), notes
        return
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    space = dict(sorted(study.trials[0].distributions.items()))
    assert [trial.params for trial in study.trials] == [plain.ask(space).params for _ in range(4)]


@pytest.mark.slow
def test_a_grid_sampler_tries_each_combination_once(tmp_path: Path) -> None:
    given = search(tmp_path, *CHOICES, "hydra/sweeper/sampler=grid", "trainer.max_epochs=1", n_trials=9)
    end = start(tmp_path, without_sampler(given))
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    tried = {tuple(sorted(values_of(sweep / str(job)).items())) for job in range(4)}
    assert len(tried) == 4
    assert sorted(trial_results(sweep)) == [0, 1, 2, 3], "nine were asked for, and there are four"


@pytest.mark.slow
def test_a_function_suggests_further_values_also_in_a_resumed_search(tmp_path: Path) -> None:
    named = "hydra.sweeper.custom_search_space=tests.fulgurite.search.test_search_settings.suggest_decay"
    given = search(tmp_path, named, n_trials=3, t1="SIGKILL")
    start(tmp_path, given)
    end = start(tmp_path, given, "sweep.resume=last")
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    decays = []
    for job in range(3):
        config = yaml.safe_load((sweep / str(job) / ".hydra/config.yaml").read_text())
        decays.append(config["model"]["optimizer"]["weight_decay"])
    assert all(0.001 <= decay <= 0.004 for decay in decays)
    assert len(set(decays)) == 3
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_params"]
    assert best["model.optimizer.weight_decay"] in decays


def test_a_function_of_a_package_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    end = start(tmp_path, search(tmp_path, "hydra.sweeper.custom_search_space=os.path.join"))
    assert end.returncode == 2
    assert end.stderr.startswith(
        "error: command line: hydra.sweeper.custom_search_space=os.path.join: must be a function (cfg, trial) of src, "
    )
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_a_space_in_the_older_form_is_searched(tmp_path: Path) -> None:
    space = "{model.optimizer.lr: {type: float, low: 0.001, high: 0.1, log: true}, "
    space += "data.batch_size: {type: categorical, choices: [16, 32]}}"
    given = [override for override in search(tmp_path, n_trials=2) if override not in SPACE]
    end = start(tmp_path, [*given, f"hydra.sweeper.search_space={space}", "trainer.max_epochs=1"])
    assert end.returncode == 0, end.stderr
    values = [values_of(only_sweep(tmp_path) / job) for job in "01"]
    assert all(0.001 <= float(of["model.optimizer.lr"]) <= 0.1 for of in values)
    assert {of["data.batch_size"] for of in values} <= {"16", "32"}


@pytest.mark.slow
def test_the_sweeper_of_hydras_plugin_still_works_and_cannot_resume(tmp_path: Path) -> None:
    given = [override for override in search(tmp_path, n_trials=2) if override != "hydra/sweeper=search"]
    given.insert(1, "hydra/sweeper=optuna")
    end = run_cli("train", *given, "trainer.max_epochs=1", logs=tmp_path / "logs")
    assert end.returncode == 0, end.stderr
    sweep = only_sweep(tmp_path)
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert set(best["best_params"]) == {"model.optimizer.lr", "data.batch_size"}
    again = run_cli("train", *given, "sweep.resume=last", logs=tmp_path / "logs")
    rule = "needs a sweeper of this library. Set hydra/sweeper=grid or hydra/sweeper=search."
    assert (again.returncode, again.stderr) == (2, f"error: sweep.resume=last: {rule}\n")


TAKES_NO = "SearchSweeper takes no such argument. Did you mean"
NO_TARGET = "'optuna.samplers.TPESamplr' does not exist: optuna.samplers has no 'TPESamplr'. Did you mean 'TPESampler'"
NO_KEY = "there is no such key. Did you mean"


def test_a_typo_in_a_search_of_hydras_sweeper_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults: [override /hydra/sweeper: optuna]\n"
    text += "hydra: {sweeper: {n_trials: 2, params: {sed: 'choice(1,2)'}}}\n"
    end = start(tmp_path, ["-m", *with_file(tmp_path, "hparams_search/ours.yaml", text), "hparams_search=ours"])
    place = f"{tmp_path / 'hparams_search/ours.yaml'}:3"
    assert (end.returncode, end.stderr) == (2, f"error: {place}: sed=1, 2: {NO_KEY} 'seed'?\n")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("n_trials:", "n_trails:", f"hydra.sweeper.n_trails: {TAKES_NO} 'n_trials'?"),
        ("direction:", "directions:", f"hydra.sweeper.directions: {TAKES_NO} 'direction'?"),
        ("params:", "param:", f"hydra.sweeper.param: {TAKES_NO} 'params'?"),
        ("samplers.TPESampler", "samplers.TPESamplr", f"hydra.sweeper.sampler._target_: {NO_TARGET}"),
        (
            "n_startup_trials:",
            "n_startup_trails:",
            f"{{file}}:16: hydra.sweeper.sampler.n_startup_trails: {NO_KEY} 'n_startup_trials'?",
        ),
        ("mode:", "mood:", f"{{file}}:9: hydra.mood: {NO_KEY} 'mode'?"),
    ],
)
def test_a_typo_in_the_file_of_a_search_is_named(right: str, wrong: str, said: str, tmp_path: Path) -> None:
    text = (ROOT / "configs/hparams_search/mnist_optuna.yaml").read_text()
    assert right in text
    search = with_file(tmp_path, "hparams_search/ours.yaml", text.replace(right, wrong))
    try:
        lines = findings(*search, "hparams_search=ours")
    except ConfigError as error:
        lines = error.findings
    assert len(lines) == 1, lines
    assert lines[0].startswith(said.format(file=tmp_path / "hparams_search/ours.yaml"))
