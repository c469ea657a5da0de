"""The trials of a resumed search: results are told to the study, and the sampler proposes what it would have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.samplers import BaseSampler

from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import read_space
from fulgurite.search.trials import Trials
from fulgurite.study.storage import StoredStudy, open_storage, study_name
from tests.support.cli import read_json
from tests.support.fake_sweep import leave_run
from tests.support.search import trial_results


def tpe(**more: Any) -> BaseSampler:
    """Return a TPE sampler that models the results from the third trial on."""
    return optuna.samplers.TPESampler(seed=3, n_startup_trials=2, **more)


def killed_search(folder: Path, sampler: Callable[[], BaseSampler] = tpe) -> Trials:
    """Return the trials of a killed search with a new sampler."""
    config = OmegaConf.create(
        {
            "task_name": "train",
            "optimized_metric": "val/acc",
            "hydra": {"sweeper": {"storage": None, "study_name": None}, "sweep": {"dir": str(folder)}},
        }
    )
    settings = SearchSettings(("maximize",), n_trials=4, n_jobs=1, max_failure_rate=0.5)
    found = read_space(["lr=interval(0.1,1)", "decay=interval(0,1)", "n=choice(1,2)"], OmegaConf.create({}))
    stored = StoredStudy(open_storage(config.hydra.sweeper, folder), study_name(config, folder), sampler())
    return Trials(folder, settings, found, stored, config, is_resumed=True)


def test_a_resumed_search_reports_recorded_results_to_the_study(tmp_path: Path) -> None:
    trials = killed_search(tmp_path)
    trials.is_resumed = False
    trials.open_study()
    overrides = [trials.ask().overrides for _ in range(4)]
    assert trials.num_remaining() == 0
    trials.finish(0, JobReturn(status=JobStatus.COMPLETED, _return_value=0.5))
    leave_run(tmp_path / "1", overrides[1], {"val/acc": 0.75}, status="done")
    leave_run(tmp_path / "2", overrides[2], None, status="running")
    trials.stored.trial(2).report(0.25, 0)
    trials.stored.trial(2).set_user_attr("pruned", "val/acc 0.25 after epoch 0")

    again = killed_search(tmp_path)
    assert [(job.number, job.overrides, job.state) for job in again.restore_unfinished()] == [(3, overrides[3], "new")]
    assert trial_results(tmp_path) == {
        0: ("COMPLETE", [0.5]),
        1: ("COMPLETE", [0.75]),
        2: ("PRUNED", "val/acc 0.25 after epoch 0"),
    }
    assert read_json(tmp_path / "2/run.json")["status"] == "pruned"
    again.finish(3, JobReturn(status=JobStatus.FAILED, _return_value=ValueError("boom")))
    assert again.failure_reasons() == ["trial 3 failed: boom"]
    assert again.describe(again.write_best()[0]).startswith("best: trial 1, val/acc 0.75: lr=")


@pytest.mark.filterwarnings("ignore:.*multivariate.*experimental")
@pytest.mark.parametrize(
    "sampler",
    [
        tpe,
        partial(tpe, multivariate=True),
        pytest.param(partial(optuna.samplers.NSGAIISampler, seed=3, population_size=2), marks=pytest.mark.slow),
        partial(optuna.samplers.CmaEsSampler, seed=3, warn_independent_sampling=False),
    ],
    ids=["tpe", "multivariate tpe", "nsgaii", "cmaes"],
)
def test_a_resumed_sampler_proposes_what_it_would_have_proposed(
    tmp_path: Path, sampler: Callable[[], BaseSampler]
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    given = {}
    for folder, starts in ((straight, [5]), (killed, [2, 1, 2])):
        folder.mkdir()
        overrides = []
        for number, trials in enumerate(starts):
            search_of = killed_search(folder, sampler)
            search_of.settings = replace(search_of.settings, n_trials=5)
            search_of.is_resumed = number > 0
            search_of.open_study()
            for _ in range(trials):
                job = search_of.ask()
                overrides.append(job.overrides)
                ended = JobReturn(status=JobStatus.COMPLETED, _return_value=len(overrides) % 3 / 4)
                search_of.finish(job.number, ended)
        given[folder] = overrides
    assert given[killed] == given[straight]
    assert len(set(given[killed])) > 3, "a genetic sampler may have a child like its parent"
