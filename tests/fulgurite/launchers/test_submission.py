"""Submitting jobs to a scheduler: full queues, lost jobs, stopped sweeps."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from fulgurite.core.errors import UserError
from fulgurite.core.files import load_pickle
from fulgurite.engine.outcome import JobFailed
from fulgurite.launchers.cluster import ray as on_ray
from fulgurite.launchers.cluster import scheduler as scheduled
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.cluster.scheduler import JobLost, QueueFull, submit_jobs
from fulgurite.launchers.cluster.slurm import TEMPORARY_REFUSAL
from fulgurite.launchers.job import RemoteJob
from fulgurite.runs.lock import run_lock
from fulgurite.runs.sweep_ledger import LEDGER, append_event, ledger_state, read_events, record_event
from tests.conftest import SMALL
from tests.fulgurite.sweeps.test_grid import planned
from tests.support.project import ROOT
from tests.support.run_if import RunIf


class Noted:
    """A scheduler in which job 1 is lost when it has begun, and job 2 before; job 4 never ends by itself.

    Args:
        room: The most jobs that it takes at once.
    """

    def __init__(self, room: int = 9) -> None:
        self.room, self.there, self.most, self.refused = room, 0, 0, 0
        self.told: list[tuple[str, list[int]]] = []
        self.asked = False

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> int:
        """Begin all but job 2."""
        if self.there >= self.room:
            self.refused += 1
            raise QueueFull("QOSMaxSubmitJobPerUserLimit")
        self.there += 1
        if job.number != 2:
            job.folder.mkdir(parents=True)
            (job.folder / "run.json").write_text(json.dumps({"status": "running"}))
        return job.number

    def ended(self, handles: Sequence[int]) -> Sequence[int]:
        """Return the oldest."""
        self.most = max(self.most, len(handles))
        return [job for job in handles if job != 4 or self.asked][:1]

    def result(self, handle: int) -> JobReturn:
        """Return what a job has left."""
        self.there -= 1
        if handle in {1, 2}:
            raise JobLost("node lost")
        return JobReturn(overrides=[str(handle)], status=JobStatus.COMPLETED)

    def request_stop(self, handles: Sequence[int]) -> None:
        """Note it."""
        self.told.append(("request_stop", list(handles)))
        self.asked = True

    def kill(self, handles: Sequence[int]) -> None:
        """Note it."""
        self.told.append(("kill", list(handles)))

    def close(self) -> None:
        """Note it."""
        self.told.append(("close", []))


def handed(folder: Path, scheduler: Noted, jobs: Iterator[tuple[int, Sequence[str]]]) -> Any:
    """Hand jobs of a real command line to a scheduler."""
    with planned("seed=0", *SMALL, f"hydra.sweep.dir={folder}") as (_, config, loader):
        launcher = SimpleNamespace(
            config=config, hydra_context=SimpleNamespace(config_loader=loader), task_function=len
        )
        yield from submit_jobs(scheduler, launcher, jobs, 2)  # type: ignore[arg-type]


def test_a_slot_is_refilled_when_a_job_ends_and_a_lost_job_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = Noted()
    append_event(tmp_path, "plan", jobs=[{"job": job, "key": f"key-{job}", "words": []} for job in range(4)])
    returned = dict(handed(tmp_path, scheduler, iter([(job, [f"seed={job}"]) for job in range(4)])))
    assert list(returned) == [0, 1, 2, 3]
    assert scheduler.most == 2
    assert scheduler.told == [("close", [])]
    lost, never = returned[1]._return_value, returned[2]._return_value
    assert isinstance(lost, JobFailed)
    assert (lost.outcome.status, lost.outcome.reason) == ("killed", "node lost")
    assert never.outcome.status == "failed"
    record = json.loads((tmp_path / "1/run.json").read_text())
    assert (record["status"], record["reason"], record["exit_code"]) == ("killed", "node lost", 1)
    [told] = [event for event in read_events(tmp_path) if event["event"] == "killed"]
    assert (told["job"], told["key"], told["reason"]) == (1, "key-1", "node lost")
    assert "sweep: job 1 killed: node lost (seed=1), " in capsys.readouterr().err


def test_a_closed_sweep_requests_its_jobs_to_stop_and_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = Noted()
    running = handed(tmp_path, scheduler, iter([(job, [f"seed={job}"]) for job in (3, 4, 5)]))
    assert next(running)[0] == 3
    running.close()
    assert scheduler.told == [("request_stop", [4]), ("close", [])]
    assert "stopping jobs 4; they save within 90 s" in capsys.readouterr().err
    assert not (tmp_path / "5").exists()


def test_a_job_waits_while_the_queue_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = Noted(room=1)
    returned = dict(handed(tmp_path, scheduler, iter([(job, [f"seed={job}"]) for job in (0, 3, 5)])))
    assert [(number, job.status) for number, job in returned.items()] == [
        (number, JobStatus.COMPLETED) for number in (0, 3, 5)
    ]
    assert (scheduler.most, scheduler.refused) == (1, 2), "tried again when there is room, not over and over"
    said = capsys.readouterr().err
    assert said.count("the scheduler accepts no more jobs for now: QOSMaxSubmitJobPerUserLimit") == 1
    assert "1 of 3 done" in said


def test_a_scheduler_that_accepts_no_job_stops_the_sweep_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^job 0: the scheduler did not accept it \(QOSMaxSubmitJobPerUserLimit\)"):
        list(handed(tmp_path, Noted(room=0), iter([(0, ["seed=0"])])))
    scheduler = Noted(room=1)
    monkeypatch.setattr(scheduled, "QUEUE_FULL_SECONDS", 0.3)
    monkeypatch.setattr(scheduled, "RETRY_SECONDS", 0.1)
    running = handed(tmp_path, scheduler, iter([(job, [f"seed={job}"]) for job in (3, 5)]))
    assert next(running)[0] == 3
    scheduler.there = 1  # someone else's
    with pytest.raises(UserError, match="job 5: the scheduler did not accept it"):
        next(running)
    assert scheduler.refused >= 2


@pytest.mark.parametrize(
    ("said", "for_now"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates", True),
        ("sbatch: error: AssocMaxSubmitJobLimit", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: invalid partition specified: nowhere", False),
        ("sbatch: error: Memory specification can not be satisfied", False),
    ],
)
def test_temporary_refusals_of_sbatch_are_distinguished_from_permanent_ones(said: str, *, for_now: bool) -> None:
    assert bool(TEMPORARY_REFUSAL.search(said)) == for_now


def test_free_slots_of_ray_are_its_resources_divided_by_those_of_a_job() -> None:
    ray = object.__new__(on_ray.RayScheduler)
    ray.ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": 2.0, "bigmem": 3.0})
    for resources, room in ((None, 4), ({}, 4), ({"bigmem": 1}, 3)):
        ray.settings = {"num_cpus": 2, "num_gpus": 0.5, "resources": resources}
        assert ray.num_free_slots() == room
    ray.settings = {"num_cpus": 2, "num_gpus": 0, "resources": {"tpu": 1}}
    with pytest.raises(UserError, match="a job needs 1 tpu, more than Ray has"):
        ray.num_free_slots()


@RunIf(posix=True)
def test_only_stale_ray_directories_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("ray-dead", "ray-lives", "ray-of-another-program", "other"):
        (tmp_path / name / "session").mkdir(parents=True)
    for name in ("ray-dead", "other"):
        (tmp_path / name / ".owner").write_text("1\n")
    begun, over = (multiprocessing.get_context("fork").Event() for _ in range(2))
    owner = multiprocessing.get_context("fork").Process(target=own, args=(tmp_path / "ray-lives", begun, over))
    owner.start()
    assert begun.wait(10)
    on_ray.remove_stale_dirs()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ray-lives", "ray-of-another-program"]
    over.set()
    owner.join()
    on_ray.remove_stale_dirs()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ray-of-another-program"]


@RunIf(posix=True)
def test_a_job_runs_in_a_child_process_and_returns_its_result(tmp_path: Path) -> None:
    with planned("seed=0", *SMALL, f"hydra.sweep.dir={tmp_path}") as (_, config, loader):
        context = SimpleNamespace(config_loader=loader)
        launcher = SimpleNamespace(config=config, hydra_context=context, task_function=len)
        job = RemoteJob.compose(launcher, 0, ["seed=3"])  # type: ignore[arg-type]
    pickled = JobEnvelope(str(ROOT), str(tmp_path), pickle.dumps(job)).run_in_subprocess(f"{tmp_path}/log", 5)
    assert isinstance(pickled, bytes), pickled + (tmp_path / "log").read_text()
    returned = load_pickle(pickled)
    assert (returned.status, returned.return_value) == (JobStatus.COMPLETED, len(job.plain) - 1)


def own(folder: Path, begun: Any, over: Any) -> None:
    """Have a folder as its sweep has it."""
    with run_lock(folder):
        begun.set()
        over.wait(10)


def test_each_line_of_a_ledger_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_event(tmp_path, "plan", jobs=[{"job": job, "key": f"key-{job}", "words": []} for job in range(200)])
    parsed = 0
    loads = json.loads

    def counted(line: Any) -> Any:
        nonlocal parsed
        parsed += 1
        return loads(line)

    monkeypatch.setattr("fulgurite.runs.sweep_ledger.json.loads", counted)
    for job in range(200):
        record_event({"dir": str(tmp_path), "job": job}, "done", run=tmp_path / str(job), reason=None, exit_code=0)
    assert parsed == 200, "the plan and all events but the last"
    monkeypatch.undo()
    assert [event["key"] for event in read_events(tmp_path)[1:]] == [f"key-{job}" for job in range(200)]


def test_an_incomplete_ledger_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    append_event(tmp_path, "queued", job=1, key="a", id="7")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"event": "started", ')
        file.flush()
        assert ledger_state(tmp_path).last == {1: read_events(tmp_path)[0]}
        file.write('"job": 1, "key": "a"}\n')
    assert ledger_state(tmp_path).last[1]["event"] == "started"
    (tmp_path / LEDGER).write_text("")
    assert ledger_state(tmp_path).last == {}


@RunIf(posix=True)
def test_concurrent_ledger_writes_leave_complete_lines(tmp_path: Path) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=write, args=(tmp_path, job)) for job in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len((tmp_path / "sweep.jsonl").read_text().splitlines()) == 12
    told = {(event["job"], event["line"]) for event in read_events(tmp_path)}
    assert told == {(job, line) for job in range(3) for line in range(4)}


def write(folder: Path, job: int) -> None:
    """Write 4 lines of several kilobytes."""
    for line in range(4):
        append_event(folder, "started", job=job, key="a", line=line, words=["x" * 5000])
