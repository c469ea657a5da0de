"""Resume searches: killed, stopped and failed ones end with exactly `n_trials` trials."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.fulgurite.resume.test_resume import rows_of, weights_at
from tests.support.cli import read_json
from tests.support.search import events, only_sweep, search, start, trial_results, values_of


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_search_killed_twice_has_exactly_six_trials_and_the_same_best(tmp_path: Path) -> None:
    given = search(tmp_path / "killed", t2="SIGKILL", t4="SIGKILL")
    assert start(tmp_path / "killed", given).returncode == -signal.SIGKILL
    sweep = only_sweep(tmp_path / "killed")
    assert events(sweep, "started", "done")[-1] == ("started", 2)
    again = start(tmp_path / "killed", given, "sweep.resume=last")
    assert again.returncode == -signal.SIGKILL, again.stderr
    assert "2 done, trial 2 to resume, 3 to start\n" in again.stderr
    last = start(tmp_path / "killed", given, f"sweep.resume={sweep}")
    assert last.returncode == 0, last.stderr
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [*"012345"]
    assert Counter(events(sweep, "done")) == {("done", job): 1 for job in range(6)}
    assert len({tuple(values_of(sweep / str(job)).items()) for job in range(6)}) == 6

    straight = search(tmp_path / "straight", "callbacks.fault_once.what={}")
    assert start(tmp_path / "straight", straight).returncode == 0
    other = only_sweep(tmp_path / "straight")
    assert [values_of(sweep / str(job)) for job in range(6)] == [values_of(other / str(job)) for job in range(6)]
    assert trial_results(sweep) == trial_results(other)
    best = (sweep / "optimization_results.yaml").read_text()
    assert best == (other / "optimization_results.yaml").read_text()
    for job in "24":  # the resumed trials match those that were never killed
        assert [entry["step"] for entry in read_json(sweep / job / "run.json")["resumed"]] == [3]
        assert weights_at(sweep / job / "checkpoints/last.ckpt") == weights_at(other / job / "checkpoints/last.ckpt")
        assert rows_of(sweep / job) == rows_of(other / job)

    more = start(tmp_path / "killed", given, f"sweep.resume={sweep}", "hydra.sweeper.n_trials=7")
    assert more.returncode == 0, more.stderr
    assert sorted(trial_results(sweep)) == [*range(7)]
    assert events(sweep, "started")[-1] == ("started", 6)
    best_value = yaml.safe_load((sweep / "optimization_results.yaml").read_text())["best_value"]
    assert best_value == max(values[0] for _, values in trial_results(sweep).values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_failed_trials_are_reported_with_their_reason_and_retried_when_asked(tmp_path: Path) -> None:
    given = search(tmp_path, n_trials=4, t1="raise", t2="spoil", t3="SIGTERM")
    first = start(tmp_path, given)
    assert first.returncode == 143
    sweep = only_sweep(tmp_path)
    assert trial_results(sweep)[1] == ("FAIL", "ValueError: a fault that passes")
    assert trial_results(sweep)[2][0] == "FAIL"
    assert "NaN or infinity" in trial_results(sweep)[2][1]
    assert 3 not in trial_results(sweep)
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert [best["best_value"]] == trial_results(sweep)[0][1], "written before the signal ended the search"
    assert events(sweep, "killed") == [("killed", 3)]
    assert f"to resume, run the same command with sweep.resume={sweep}" in first.stderr

    second = start(tmp_path, given, "sweep.resume=last")
    assert second.returncode == 1
    assert "1 done, trial 3 to resume, trials 1, 2 failed\n" in second.stderr
    assert second.stderr.endswith(". Pass sweep.retry_failed=true to retry.\n")
    assert trial_results(sweep)[3][0] == "COMPLETE"
    assert [entry["step"] for entry in read_json(sweep / "3/run.json")["resumed"]] == [4]

    third = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert third.returncode == 0, third.stderr
    assert sorted(trial_results(sweep)) == [*range(6)]
    assert [values_of(sweep / job) for job in "45"] == [values_of(sweep / job) for job in "12"]
    assert [trial_results(sweep)[job][0] for job in (1, 2, 4, 5)] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert start(tmp_path, given, "sweep.resume=last").returncode == 0
    assert len(trial_results(sweep)) == 6, "all trials are done"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_search_on_two_slots_resumes_a_trial_whose_process_was_killed(tmp_path: Path) -> None:
    given = search(tmp_path, "hydra/launcher=local", "hydra.launcher.slots=2", "hydra.launcher.cpus=0", t1="SIGKILL")
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    assert first.returncode == 128 + signal.SIGKILL, first.stderr
    assert sorted(trial_results(sweep)) == [0, 2, 3, 4, 5], "the other slot stayed in use"
    assert "killed by SIGKILL" in read_json(sweep / "1/run.json")["reason"]
    again = start(tmp_path, given, "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert "5 done, trial 1 to resume\n" in again.stderr
    assert sorted(trial_results(sweep)) == [*range(6)]
    assert [entry["step"] for entry in read_json(sweep / "1/run.json")["resumed"]] == [3]
    assert len({tuple(values_of(sweep / str(job)).items()) for job in range(6)}) == 6
