"""A study that somebody else can write to runs no code in the process of a search."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import read_space
from fulgurite.search.trials import Trials
from fulgurite.study.sampler_state import refuse_unpickling_sampler
from fulgurite.study.storage import StoredStudy, open_storage

CMA = partial(optuna.samplers.CmaEsSampler, seed=3, n_startup_trials=2, warn_independent_sampling=False)


class MakesCanary:
    """An object whose pickle makes a folder when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("canary",)


class UnpicklesToo(optuna.samplers.RandomSampler):
    """A sampler of a module that imports pickle: this one."""


def search(folder: Path, sampler: optuna.samplers.BaseSampler, *, is_resumed: bool) -> Trials:
    """Return the trials of a search in a folder, with an open study."""
    config = OmegaConf.create({"optimized_metric": "val/acc", "hydra": {"sweeper": {"storage": None}}})
    settings = SearchSettings(("maximize",), n_trials=20, n_jobs=1, max_failure_rate=0.5)
    space = read_space(["lr=interval(0.1,1)", "decay=interval(0,1)"], OmegaConf.create({}))
    stored = StoredStudy(open_storage(config.hydra.sweeper, folder), "train/x", sampler)
    trials = Trials(folder, settings, space, stored, config, is_resumed=is_resumed)
    trials.open_study()
    return trials


def run_trials(trials: Trials, count: int) -> list[tuple[str, ...]]:
    """Run trials, and return their overrides."""
    given = []
    for number in range(count):
        job = trials.ask()
        given.append(job.overrides)
        trials.finish(job.number, JobReturn(status=JobStatus.COMPLETED, _return_value=number % 3 / 4))
    return given


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the folder where a canary would appear."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("key", ["cma:optimizer", "cma:optimizer:0", "sepcma:optimizer:0", "cma:restart_1:optimizer:0"])
@pytest.mark.parametrize("is_running", [False, True], ids=["resumed", "during the search"])
def test_a_pickle_in_a_study_is_refused(key: str, is_running: bool, tmp_path: Path) -> None:
    trials = search(tmp_path, CMA(), is_resumed=False)
    run_trials(trials, 3)
    number = trials.stored.storage.get_trial_id_from_study_id_trial_number(1, 2)
    _write_attribute(tmp_path / "study.db", number, key, pickle.dumps(MakesCanary()).hex())
    with pytest.raises(UserError, match=rf"^hydra\.sweeper\.storage: trial 2 has the pickle {key}, which could run"):
        (trials if is_running else search(tmp_path, CMA(), is_resumed=True)).ask()
    assert not (tmp_path / "canary").exists()


def _write_attribute(study: Path, trial: int, key: str, value: str) -> None:
    """Write a system attribute of a finished trial, which Optuna refuses to do."""
    with closing(sqlite3.connect(study)) as database, database:
        row = (trial, key, json.dumps(value))
        database.execute("INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)


@pytest.mark.slow
def test_cma_es_writes_no_pickle_and_proposes_the_same_after_a_resume(tmp_path: Path) -> None:
    (tmp_path / "straight").mkdir()
    straight = run_trials(search(tmp_path / "straight", CMA(), is_resumed=False), 12)
    (tmp_path / "killed").mkdir()
    killed = run_trials(search(tmp_path / "killed", CMA(), is_resumed=False), 9)
    # the results count from 0 again: 9 is a multiple of their period
    killed += run_trials(search(tmp_path / "killed", CMA(), is_resumed=True), 3)
    assert killed == straight
    study = optuna.load_study(study_name="train/x", storage=f"sqlite:///{tmp_path}/killed/study.db")
    keys = {key for trial in study.trials for key in trial.system_attrs}
    assert any("generation" in key for key in keys)
    assert not [key for key in keys if "optimizer" in key]


@pytest.mark.parametrize("sampler", [UnpicklesToo, lambda: optuna.samplers.PartialFixedSampler({}, UnpicklesToo())])
@pytest.mark.filterwarnings("ignore:.*PartialFixedSampler is experimental")
def test_a_sampler_that_may_unpickle_needs_a_storage_of_its_own(sampler: Callable[[], Any]) -> None:
    refuse_unpickling_sampler(sampler(), is_own_storage=True)
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.sampler: UnpicklesToo may unpickle what it finds"):
        refuse_unpickling_sampler(sampler(), is_own_storage=False)


@pytest.mark.parametrize("name", ["TPESampler", "CmaEsSampler", "NSGAIISampler", "RandomSampler"])
def test_optunas_samplers_take_any_storage(name: str) -> None:
    refuse_unpickling_sampler(getattr(optuna.samplers, name)(), is_own_storage=False)


@pytest.mark.parametrize(
    "storage",
    [
        {"_target_": "optuna.storages.RedisStorage", "url": "redis://127.0.0.1:1"},
        {"_target_": "optuna.storages._redis.RedisStorage", "url": "redis://127.0.0.1:1"},
        {"_target_": "optuna.storages._CachedStorage", "backend": {"_target_": "optuna.storages.RedisStorage"}},
        {"_target_": "${name}", "url": "redis://127.0.0.1:1"},
    ],
)
def test_redis_is_refused_since_it_unpickles_what_a_server_sends(storage: dict[str, Any], tmp_path: Path) -> None:
    sweeper = OmegaConf.create({"name": "optuna.storages.RedisStorage", "storage": storage})
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.storage\.\S*_target_: optuna\.\S+ unpickles what"):
        open_storage(sweeper, tmp_path)


def test_an_address_of_redis_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage: redis cannot be opened"):
        open_storage(OmegaConf.create({"storage": "redis://127.0.0.1:1"}), tmp_path)
