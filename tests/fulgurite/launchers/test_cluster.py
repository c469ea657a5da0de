"""Sweeps with real submitit and Ray jobs, and their faults."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fulgurite.runs.sweep_ledger import read_events
from tests.fulgurite.resume.test_resume import weights_at
from tests.fulgurite.sweeps.test_sweep_resume import events, grid_command, only_sweep, start
from tests.support.cli import WarmProcess, read_json
from tests.support.faults import processes_with
from tests.support.run_if import RunIf
from tests.support.slurm import CONTROLLER, DAEMON, STEP, slurm

LOCAL = ("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.slots=2")
ON_RAY = ("hydra/launcher=ray", "hydra.launcher.slots=2", "+hydra.launcher.init.num_cpus=2")
on_each = pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(LOCAL, marks=RunIf(package="submitit", posix=True), id="submitit"),
        pytest.param(ON_RAY, marks=RunIf(package="ray", posix=True), id="ray"),
    ],
)


@pytest.mark.slow
@on_each
def test_failed_and_killed_jobs_do_not_stop_the_others_and_are_resumed(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    given = [*grid_command(tmp_path, s2="raise", s3="SIGKILL"), *launcher]
    given[given.index("seed=1,2,3,4,5,6")] = "seed=1,2,3,4"
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = [read_json(sweep / str(job) / "run.json") for job in range(4)]
    assert [record["status"] for record in records] == ["done", "failed", "killed", "done"]
    assert records[1]["reason"] == "ValueError: a fault that passes"
    assert "without reporting a reason" in records[2]["reason"]
    told = {event["job"]: event for event in read_events(sweep) if event["event"] in {"failed", "killed"}}
    assert {job: event["reason"] for job, event in told.items()} == {1: records[1]["reason"], 2: records[2]["reason"]}
    assert f"job 2 killed: {records[2]['reason']}\n" in first.stdout
    assert first.returncode == 1

    before = len(read_events(sweep))
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    then = [(event["event"], event.get("job")) for event in read_events(sweep)[before:]]
    assert sorted(job for event, job in then if event == "started" and job is not None) == [1, 2]
    assert [read_json(sweep / str(job) / "run.json")["status"] for job in range(4)] == ["done"] * 4
    assert [entry["step"] for entry in read_json(sweep / "2/run.json")["resumed"]] == [3]
    assert processes_with(str(tmp_path)) == []


@pytest.mark.slow
@on_each
def test_jobs_of_a_stopped_sweep_save_and_are_resumed(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    slow = "+callbacks.slow={_target_: tests.support.signals.SendSignal, name: SIGCONT, sleep: 1.0}"
    given = ["-m", *grid_command(tmp_path)[1:], *launcher, slow, "trainer.max_epochs=20"]
    given[given.index("seed=1,2,3,4,5,6")] = "seed=1,2,3"
    given.remove("trainer.max_epochs=2")
    started = WarmProcess("train", [*given, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said")
    sweep = wait_until_saved(tmp_path, jobs=2)
    os.kill(started.pid, signal.SIGTERM)
    ended = started.wait()
    assert ended.returncode == 143, ended.stderr
    records = [read_json(sweep / str(job) / "run.json") for job in range(2)]
    assert [record["status"] for record in records] == ["killed", "killed"]
    assert all("saved at step" in record["reason"] for record in records)
    assert not (sweep / "2").exists()
    assert "stopping jobs 0, 1" in ended.stderr
    assert f"1 not started; to resume, run the same command with sweep.resume={sweep}" in ended.stderr
    assert processes_with(str(tmp_path)) == []

    given[-1] = "trainer.max_epochs=20"
    again = start(tmp_path, [*given, "sweep.dry_run=true"], "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert "0 done, jobs 0, 1 to resume, 1 to start" in again.stderr


def wait_until_saved(tmp_path: Path, *, jobs: int, within: float = 90) -> Path:
    """Return the sweep's folder when so many jobs have saved something."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if len(list(tmp_path.glob("logs/train/multiruns/*/*/checkpoints/last.ckpt.json"))) >= jobs:
            return only_sweep(tmp_path)
        time.sleep(0.2)
    raise AssertionError(f"{jobs} jobs have not saved within {within} s: {(tmp_path / 'said/err').read_text()}")


@pytest.mark.slow
@RunIf(package="submitit", posix=True)
def test_a_job_at_its_time_limit_is_requeued_and_resumes_exactly(tmp_path: Path) -> None:
    given = [*grid_command(tmp_path, s2="SIGUSR1"), *LOCAL]
    given[given.index("seed=1,2,3,4,5,6")] = "seed=2,2"
    done = start(tmp_path, given)
    assert done.returncode == 0, done.stderr
    sweep = only_sweep(tmp_path)
    told = [job for name, job in events(sweep, "started", "killed", "done") if name == "started"]
    assert sorted(told) in ([0, 0, 1], [0, 1, 1])
    again = max(range(2), key=told.count)
    record = read_json(sweep / str(again) / "run.json")
    assert [entry["step"] for entry in record["resumed"]] == [4]
    assert (record["status"], record["reason"]) == ("done", None)
    assert weights_at(sweep / "0/checkpoints/last.ckpt") == weights_at(sweep / "1/checkpoints/last.ckpt")


@pytest.fixture
def on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Give a Slurm of this machine, to which the commands of the test have their way."""
    with slurm(tmp_path / "slurm") as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        yield env


ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.slots=2", "hydra.launcher.poll_s=1", "hydra.launcher.timeout_min=5")
needs_slurm = pytest.mark.skipif(not (CONTROLLER and DAEMON and STEP), reason="needs slurmctld and slurmd")


@pytest.mark.slow
@needs_slurm
@RunIf(package="submitit", posix=True)
def test_failed_killed_and_requeued_slurm_jobs_are_resumed_by_the_sweep(
    tmp_path: Path, on_slurm: dict[str, str]
) -> None:
    given = [*grid_command(tmp_path, s2="raise", s3="SIGKILL", s4="SIGUSR1"), *ON_SLURM]
    given[given.index("seed=1,2,3,4,5,6")] = "seed=1,2,3,4"
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = [read_json(sweep / str(job) / "run.json") for job in range(4)]
    assert [record["status"] for record in records] == ["done", "failed", "killed", "done"], first.stderr
    assert "ended without reporting a reason, state FAILED" in records[2]["reason"]
    assert [entry["step"] for entry in records[3]["resumed"]] == [4]
    assert [name for name, job in events(sweep, "queued", "started", "killed", "done") if job == 3] == [
        *("queued", "started", "killed", "started", "done")
    ]
    assert first.returncode == 1
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    assert [read_json(sweep / str(job) / "run.json")["status"] for job in range(4)] == ["done"] * 4


@pytest.mark.slow
@on_each
def test_the_ranks_of_a_job_start_on_the_machine_of_the_job(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    done = start(tmp_path, [*one_seed(grid_command(tmp_path)), *launcher, "trainer=ddp_sim"])
    assert done.returncode == 0, done.stderr
    two_ranks(tmp_path)


@pytest.mark.slow
@needs_slurm
@RunIf(package="submitit", posix=True)
@pytest.mark.parametrize("tasks", [1, 2])
def test_ranks_are_slurm_tasks_or_started_by_a_single_task(
    tmp_path: Path, on_slurm: dict[str, str], tasks: int
) -> None:
    given = [*one_seed(grid_command(tmp_path)), *ON_SLURM, "trainer=ddp_sim", f"hydra.launcher.tasks_per_node={tasks}"]
    done = start(tmp_path, given)
    assert done.returncode == 0, done.stderr
    two_ranks(tmp_path)


def one_seed(given: list[str]) -> list[str]:
    """Return a command with one job."""
    return ["seed=7" if word == "seed=1,2,3,4,5,6" else word for word in given]


def two_ranks(tmp_path: Path) -> None:
    """Claim that there was one job, done by two ranks."""
    sweep = only_sweep(tmp_path)
    assert sorted(path.name for path in sweep.iterdir() if path.name.isdigit()) == ["0"]
    record = read_json(sweep / "0/run.json")
    assert (record["status"], record["ranks"]) == ("done", 2)
    assert sorted(path.name for path in (tmp_path / "marks").iterdir()) == ["7-rank0", "7-rank1"]
    assert [name for name, _ in events(sweep, "started", "done")] == ["started", "done"]
