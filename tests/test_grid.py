"""A grid that goes on: checked whole first, told in a ledger, each job done exactly once whatever ends the sweep."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from src.run.sweeps.ledger import read
from tests.doors import Started, read_json
from tests.test_resume import QUICK, rows_of, weights_at


def words(tmp_path: Path, **trouble: str) -> list[str]:
    """Return the command of a grid of six seeds, each a training of six steps, with what befalls some of them."""
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    what = ", ".join(f"{seed}: {kind}" for seed, kind in trouble.items())
    callback = (
        f"{{_target_: tests.passing_trouble.TroubleOnce, what: {{{what}}}, seed: '${{seed}}', step: 4, marks: {marks}}}"
    )
    return [
        "-m",
        *QUICK,
        "seed=1,2,3,4,5,6",
        "trainer.max_epochs=2",
        "test=false",
        f"+callbacks.trouble={callback}",
        "extras.allowed_targets=[tests]",
    ]


def start(tmp_path: Path, given: list[str], *more: str) -> Any:
    """Run a sweep to its end."""
    return Started("train", [*given, *more, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said").end(240)


def events(sweep: Path, *names: str) -> list[tuple[str, int]]:
    """Return the ledger's events of some kinds, with the number of the job."""
    return [(event["event"], event["job"]) for event in read(sweep) if event["event"] in names]


def only_sweep(tmp_path: Path) -> Path:
    """Return the one sweep directory."""
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    return sweep


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_jobs_end_badly_for_three_reasons_and_exactly_those_are_run_again(tmp_path: Path) -> None:
    given = words(tmp_path, s2="raise", s4="spoil", s6="SIGTERM")
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = [read_json(sweep / str(job) / "run.json") for job in range(6)]
    assert [record["status"] for record in records] == ["done", "failed", "done", "failed", "done", "killed"]
    assert records[1]["reason"] == "ValueError: a fault that passes"
    assert "the weights hold NaN or infinity" in records[3]["reason"]
    assert records[5]["reason"] == "terminated (SIGTERM), saved at step 4 in checkpoints/last.ckpt"
    told = {event["job"]: event for event in read(sweep) if event["event"] in {"failed", "killed"}}
    assert {job: (event["event"], event["reason"]) for job, event in told.items()} == {
        job: (records[job]["status"], records[job]["reason"]) for job in (1, 3, 5)
    }
    assert first.returncode == 143
    assert f"job 1 failed: {records[1]['reason']}\n" in first.stdout
    assert f"0 not started; to go on: the same command with sweep.resume={sweep}" in first.stderr

    before = len(read(sweep))
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    assert "3 done, job 5 (seed=6) to go on, jobs 1, 3 to be tried again" in again.stderr
    then = [(event["event"], event.get("job")) for event in read(sweep)[before:]]
    started = [job for event, job in then if event == "started"]
    assert started == [1, 3, 5]
    assert [job for event, job in then if event == "done"] == [1, 3, 5]
    assert sorted(path.name for path in sweep.iterdir() if path.name.isdigit()) == [*"012345"]
    assert [read_json(sweep / str(job) / "run.json")["status"] for job in range(6)] == ["done"] * 6
    assert [entry["step"] for entry in read_json(sweep / "5/run.json")["resumed"]] == [4]
    assert read_json(sweep / "earlier/1-1/run.json")["reason"] == "ValueError: a fault that passes"
    summary = (sweep / "summary.csv").read_text().splitlines()
    assert summary[1].startswith(",6,0,"), "seeds are folded, and what a job went on from is no value of the grid"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_killed_in_its_third_job_goes_on_to_exactly_six(tmp_path: Path) -> None:
    given = words(tmp_path, s3="SIGKILL")
    assert start(tmp_path, given).returncode == -signal.SIGKILL
    sweep = only_sweep(tmp_path)
    assert events(sweep, "started", "done", "killed") == [
        *(("started", 0), ("done", 0), ("started", 1), ("done", 1), ("started", 2)),
    ]
    again = start(tmp_path, given, "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert Counter(events(sweep, "done")) == {("done", job): 1 for job in range(6)}
    assert ("killed", 2) in events(sweep, "killed")
    keys = [event["key"] for event in read(sweep) if event["event"] == "done"]
    assert len(set(keys)) == 6
    assert [read_json(sweep / str(job) / "run.json")["seed"] for job in range(6)] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [*"012345"]

    # the killed job ended as one that was never killed
    assert [entry["step"] for entry in read_json(sweep / "2/run.json")["resumed"]] == [3]
    straight = tmp_path / "straight"
    alone = [word.replace("seed=1,2,3,4,5,6", "seed=3") for word in given if word != "-m"]
    assert Started("train", [*alone, f"hydra.run.dir={straight}"], tmp_path / "alone").end().returncode == 0
    assert weights_at(sweep / "2/checkpoints/last.ckpt") == weights_at(straight / "checkpoints/last.ckpt")
    assert rows_of(sweep / "2") == rows_of(straight)

    done = start(tmp_path, given, "sweep.resume=last")
    assert done.returncode == 0
    assert len(events(sweep, "started")) == 7, "nothing is left to do"
