"""Resume sweeps: grids that fail, are killed or changed end with every job done exactly once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fulgurite.runs.sweep_ledger import read_events
from tests.fulgurite.resume.test_resume import QUICK, rows_of, weights_at
from tests.support.cli import WarmProcess, read_json, run_cli
from tests.support.project import ROOT


def grid_command(tmp_path: Path, **faults: str) -> list[str]:
    """Return the command of a grid of six seeds with six steps each, and faults of some seeds."""
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    what = ", ".join(f"{seed}: {kind}" for seed, kind in faults.items())
    target = "tests.support.fault_once.FaultOnce"
    callback = f"{{_target_: {target}, what: {{{what}}}, seed: '${{seed}}', step: 4, marks: {marks}}}"
    return [
        "-m",
        *QUICK,
        "seed=1,2,3,4,5,6",
        "trainer.max_epochs=2",
        "test=false",
        f"+callbacks.fault_once={callback}",
        "extras.allowed_targets=[tests]",
    ]


def start(tmp_path: Path, given: list[str], *more: str) -> Any:
    """Run a sweep until it exits."""
    return WarmProcess("train", [*given, *more, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said").wait(240)


def events(sweep: Path, *names: str) -> list[tuple[str, int]]:
    """Return the ledger's events of some kinds, with the number of the job."""
    return [(event["event"], event["job"]) for event in read_events(sweep) if event["event"] in names]


def only_sweep(tmp_path: Path) -> Path:
    """Return the one sweep directory."""
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    return sweep


def test_a_sweep_resumes_with_other_output_and_other_loggers(tmp_path: Path) -> None:
    given = ["-m", "seed=1,2", "train=false", "test=false"]
    assert start(tmp_path, given).returncode == 0
    display = ["extras.print_config=false", "hydra.verbose=true", "logger=csv", "callbacks.progress_bar.refresh_rate=5"]
    again = start(tmp_path, given, *display, "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert ": 2 done\n" in again.stderr
    assert events(only_sweep(tmp_path), "started") == [("started", 0), ("started", 1)]
    other = start(tmp_path, [*given[:1], "seed=1,3", *given[2:]], *display, "sweep.resume=last")
    assert other.returncode == 2
    assert "defines a different grid (added seed=3, removed seed=2)" in other.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_exactly_the_failed_and_killed_jobs_run_again(tmp_path: Path) -> None:
    given = grid_command(tmp_path, s2="raise", s4="spoil", s6="SIGTERM")
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = [read_json(sweep / str(job) / "run.json") for job in range(6)]
    assert [record["status"] for record in records] == ["done", "failed", "done", "failed", "done", "killed"]
    assert records[1]["reason"] == "ValueError: a fault that passes"
    assert "the weights contain NaN or infinity" in records[3]["reason"]
    assert records[5]["reason"] == "terminated (SIGTERM), saved at step 4 in checkpoints/last.ckpt"
    failures = {event["job"]: event for event in read_events(sweep) if event["event"] in {"failed", "killed"}}
    assert {job: (event["event"], event["reason"]) for job, event in failures.items()} == {
        job: (records[job]["status"], records[job]["reason"]) for job in (1, 3, 5)
    }
    assert first.returncode == 143
    assert f"job 1 failed: {records[1]['reason']}\n" in first.stdout
    assert f"0 not started; to resume, run the same command with sweep.resume={sweep}" in first.stderr

    before = len(read_events(sweep))
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    assert "3 done, job 5 (seed=6) to resume, jobs 1, 3 to retry" in again.stderr
    then = [(event["event"], event.get("job")) for event in read_events(sweep)[before:]]
    started = [job for event, job in then if event == "started"]
    assert started == [1, 3, 5]
    assert [job for event, job in then if event == "done"] == [1, 3, 5]
    assert sorted(path.name for path in sweep.iterdir() if path.name.isdigit()) == [*"012345"]
    assert [read_json(sweep / str(job) / "run.json")["status"] for job in range(6)] == ["done"] * 6
    assert [entry["step"] for entry in read_json(sweep / "5/run.json")["resumed"]] == [4]
    assert read_json(sweep / "earlier/1-1/run.json")["reason"] == "ValueError: a fault that passes"
    summary = (sweep / "summary.csv").read_text().splitlines()
    assert summary[1].startswith(",6,0,"), "seeds are aggregated, and resume overrides are not values of the grid"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_killed_in_its_third_job_resumes_to_exactly_six(tmp_path: Path) -> None:
    given = grid_command(tmp_path, s3="SIGKILL")
    assert start(tmp_path, given).returncode == -signal.SIGKILL
    sweep = only_sweep(tmp_path)
    assert events(sweep, "started", "done", "killed") == [
        *(("started", 0), ("done", 0), ("started", 1), ("done", 1), ("started", 2)),
    ]
    again = start(tmp_path, given, "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert Counter(events(sweep, "done")) == {("done", job): 1 for job in range(6)}
    assert ("killed", 2) in events(sweep, "killed")
    keys = [event["key"] for event in read_events(sweep) if event["event"] == "done"]
    assert len(set(keys)) == 6
    assert [read_json(sweep / str(job) / "run.json")["seed"] for job in range(6)] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [*"012345"]

    # the resumed job matches one that was never killed
    assert [entry["step"] for entry in read_json(sweep / "2/run.json")["resumed"]] == [3]
    straight = tmp_path / "straight"
    alone = [argument.replace("seed=1,2,3,4,5,6", "seed=3") for argument in given if argument != "-m"]
    assert WarmProcess("train", [*alone, f"hydra.run.dir={straight}"], tmp_path / "alone").wait().returncode == 0
    assert weights_at(sweep / "2/checkpoints/last.ckpt") == weights_at(straight / "checkpoints/last.ckpt")
    assert rows_of(sweep / "2") == rows_of(straight)

    done = start(tmp_path, given, "sweep.resume=last")
    assert done.returncode == 0
    assert len(events(sweep, "started")) == 7, "all jobs are done"


@pytest.mark.slow
def test_a_sweep_stopped_at_its_first_failure_reports_it_when_resumed(tmp_path: Path) -> None:
    given = grid_command(tmp_path, s2="raise")
    end = start(tmp_path, given, "sweep.on_error=stop")
    sweep = only_sweep(tmp_path)
    assert end.returncode == 1
    assert "sweep stopped by sweep.on_error=stop: 4 jobs not started\n" in end.stderr
    assert events(sweep, "done", "failed") == [("done", 0), ("failed", 1)]
    again = start(tmp_path, given, f"sweep.resume={sweep}")
    assert again.returncode == 1
    assert events(sweep, "done", "failed")[2:] == [("done", job) for job in (2, 3, 4, 5)]
    failures = "error: job 1 failed: ValueError: a fault that passes. Pass sweep.retry_failed=true to retry.\n"
    assert again.stderr.endswith(failures)
    with_same_folder = start(tmp_path, given, f"hydra.sweep.dir={sweep}")
    assert with_same_folder.returncode == 2
    assert f"holds a sweep. Resume it with sweep.resume={sweep}." in with_same_folder.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_jobs_of_two_processes_share_overrides_and_one_folder_and_resume(tmp_path: Path) -> None:
    given = [argument.replace("=1,2,3,4,5,6", "=1,2") for argument in grid_command(tmp_path, s2="SIGKILL")]
    first = run_cli("train", *given, "trainer=ddp_sim", logs=tmp_path / "logs")
    assert first.returncode == -signal.SIGKILL
    again = run_cli("train", *given, "trainer=ddp_sim", "sweep.resume=last", logs=tmp_path / "logs")
    assert again.returncode == 0, again.stderr
    sweep = only_sweep(tmp_path)
    assert events(sweep, "started", "done") == [
        ("started", 0),
        ("done", 0),
        ("started", 1),
        ("started", 1),
        ("done", 1),
    ]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert [read_json(sweep / job / "run.json")["ranks"] for job in "01"] == [2, 2]
    assert [entry["step"] for entry in read_json(sweep / "1/run.json")["resumed"]] == [3]
    marks = sorted(path.name for path in (tmp_path / "marks").iterdir())
    assert marks == ["1-rank0", "1-rank1", "2", "2-rank0", "2-rank1"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("ranks", [2, 3])
def test_jobs_of_several_processes_have_one_folder_each_and_leave_nothing_behind(ranks: int, tmp_path: Path) -> None:
    noted = f"+callbacks.noted={{_target_: tests.support.job_probe.JobProbe, folder: '{tmp_path}'}}"
    several = ("trainer=ddp_sim", f"trainer.devices={ranks}", "data.batch_size=60", "extras.allowed_targets=[tests]")
    jobs = ("seed=1,2,3", "model.optimizer.lr=0.01")
    few = (*QUICK, "test=false", "trainer.max_epochs=1")
    done = run_cli("train", "-m", *several, *jobs, *few, noted, logs=tmp_path / "logs", timeout=300)
    assert done.returncode == 0, done.stderr
    [task] = (tmp_path / "logs").iterdir()
    assert [folder.name for folder in task.iterdir()] == ["multiruns"]
    [sweep] = (task / "multiruns").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1", "2"]
    found = {path.stem: read_json(path) for path in tmp_path.glob("*.json")}
    assert sorted(found) == [f"{job}-{rank}" for job in range(3) for rank in range(ranks)]
    for job in range(3):
        of_job = [found[f"{job}-{rank}"] for rank in range(ranks)]
        assert [(one["seed"], one["lr"]) for one in of_job] == [(str(job + 1), 0.01)] * ranks
        assert len({one["weight"] for one in of_job}) == 1
    assert len({found[f"{job}-0"]["weight"] for job in range(3)}) == 3
    # each job leaves rank 0's environment as it was
    first, *later = (found[f"{job}-0"] for job in range(3))
    assert not any(one["in_group"] for one in (first, *later))
    changed = {name for one in later for name, _ in {*one["environment"].items()} ^ {*first["environment"].items()}}
    assert changed <= {"PL_GLOBAL_SEED"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_config_that_changes_during_a_sweep_is_reported_and_changes_no_job(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("src", "fulgurite", "configs", "data/mnist_sample", ".project-root"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, project / name)
    given = ["-m", *QUICK, "seed=1,2", "test=false", "trainer.max_epochs=1"]
    process = subprocess.Popen(
        [sys.executable, "src/train.py", *given],
        cwd=project,
        env={**os.environ, "PROJECT_ROOT": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(project.glob("logs/train/multiruns/*/0/run.json")):
        time.sleep(0.01)
    (project / "configs/model/mnist.yaml").write_text("net: [")
    _, said = process.communicate(timeout=120)
    [sweep] = (project / "logs/train/multiruns").iterdir()
    assert "warning: sweep: changed during the sweep: configs/model/mnist.yaml. Jobs from 1 on run the new code" in said
    [changed] = [event for event in read_events(sweep) if event["event"] == "changed"]
    assert (changed["before"], changed["files"]) == (1, ["configs/model/mnist.yaml"])
    assert events(sweep, "done", "failed") == [("done", 0), ("done", 1)]
    configs = [(sweep / job / ".hydra/config.yaml").read_text() for job in "01"]
    assert configs[0].replace("seed: 1", "seed: 2") == configs[1]
    assert process.returncode == 0, said
