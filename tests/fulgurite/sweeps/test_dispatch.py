"""Jobs are dispatched as slots become free, by any launcher, also to processes started outside the sweep."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from fulgurite.compat.hydra import returned_value
from fulgurite.core.errors import Diverged, UserError
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.job import RemoteJob, to_picklable
from fulgurite.sweeps.dispatch import run_jobs
from fulgurite.sweeps.grid import _JobQueue
from fulgurite.sweeps.jobs import Job
from src.train import train
from tests.conftest import SMALL
from tests.fulgurite.sweeps.test_grid import planned
from tests.support.cli import read_json
from tests.support.project import ROOT


class BatchLauncher(Launcher):
    """Records the batches it gets."""

    def __init__(self) -> None:
        self.given: list[tuple[int, int]] = []

    def setup(self, **_: Any) -> None:
        """Do nothing."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Record the first number and the size of a batch; job 7 cannot be composed."""
        self.given.append((initial_job_idx, len(job_overrides)))
        if initial_job_idx == 7:
            raise UserError("no such group")
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]


class SlotLauncher(BatchLauncher):
    """Has two slots and finishes the newer job first."""

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Generator[tuple[int, JobReturn], None, None]:
        """Take a job when a slot is free."""
        running: list[int] = []
        try:
            while True:
                while len(running) < min(2, at_once or 2) and (job := next(jobs, None)) is not None:
                    running.append(job[0])
                if not running:
                    return
                yield running.pop(), JobReturn(status=JobStatus.COMPLETED)
        finally:
            self.given += [(number, -1) for number in running]


def numbered(*numbers: int) -> Iterator[tuple[int, list[str]]]:
    """Yield jobs with these numbers."""
    return ((number, [f"seed={number}"]) for number in numbers)


def test_a_launcher_of_batches_gets_consecutive_numbers_and_no_more_than_it_may() -> None:
    launcher = BatchLauncher()
    ended = [number for number, _ in run_jobs(launcher, numbered(0, 1, 2, 5, 6), at_once=2)]
    assert (launcher.given, ended) == ([(0, 2), (2, 1), (5, 2)], [0, 1, 2, 5, 6])


def test_a_job_that_can_no_longer_be_composed_fails_and_the_next_one_runs() -> None:
    ended = dict(run_jobs(BatchLauncher(), numbered(7, 9)))
    assert (ended[7].status, ended[9].status) == (JobStatus.FAILED, JobStatus.COMPLETED)
    assert str(returned_value(ended[7])) == "the config can no longer be composed: no such group"


def test_a_job_is_taken_when_a_slot_is_free_and_running_jobs_stop_with_the_sweep() -> None:
    launcher, asked = SlotLauncher(), []

    def jobs() -> Iterator[tuple[int, list[str]]]:
        for number in range(9):
            asked.append(number)
            yield number, []

    running = run_jobs(launcher, jobs())
    seen = [(next(running)[0], list(asked)) for _ in range(3)]
    assert seen == [(1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3])]
    running.close()
    assert launcher.given == [(0, -1)]


def test_no_more_jobs_run_at_once_than_a_sweep_allows_whatever_slots_there_are() -> None:
    ended = [number for number, _ in run_jobs(SlotLauncher(), numbered(0, 1, 2), at_once=1)]
    assert ended == [0, 1, 2], "with both slots the newer job would finish first"


def test_a_stopped_grid_starts_no_more_jobs_and_counts_the_remaining_ones() -> None:
    todo = _JobQueue([Job(number, str(number), ()) for number in range(3)], lambda job: (job.number, []))
    assert (next(todo)[0], length_hint(todo)) == (0, 2)
    todo.is_stopped = True
    assert (list(todo), len(todo.remaining)) == ([], 2)


@pytest.mark.parametrize("error", [Diverged("the loss is nan"), ValueError("of\nmany lines"), MemoryError()])
def test_the_exception_of_a_job_is_returned_from_its_process(error: Exception) -> None:
    there = to_picklable(JobReturn(status=JobStatus.FAILED, _return_value=error))
    back = pickle.loads(pickle.dumps(there))._return_value  # noqa: S301 - made a line before
    assert isinstance(back, JobFailed)
    assert back.outcome.exit_code == (3 if isinstance(error, Diverged) else 1)
    assert back.outcome == there._return_value.outcome == Outcome("failed", str(back), back.outcome.exit_code)


@pytest.mark.slow
def test_a_pickled_job_runs_in_a_process_outside_the_sweep(tmp_path: Path) -> None:
    overrides = [*SMALL, "test=false", f"paths.log_dir={tmp_path}", "optimized_metric=train/loss", "+nobody=1"]
    with planned(*overrides[:-1], "hydra.mode=MULTIRUN", f"hydra.sweep.dir={tmp_path}/sweep") as (_, config, loader):
        context: Any = SimpleNamespace(config_loader=loader)
        launcher: Any = SimpleNamespace(config=config, hydra_context=context, task_function=train.task)
        given = [RemoteJob.compose(launcher, number, overrides[: len(overrides) + number - 4]) for number in (3, 4)]
    (tmp_path / "jobs").write_bytes(pickle.dumps(given))
    code = (
        "import pickle, pathlib, sys; jobs = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
        "pathlib.Path(sys.argv[1]).write_bytes(pickle.dumps([job.run() for job in jobs]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "jobs")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    back = pickle.loads((tmp_path / "jobs").read_bytes())  # noqa: S301 - made by this test
    facts = read_json(tmp_path / "sweep/3/run.json")
    assert (facts["status"], facts["sweep"]) == ("done", {"dir": str(tmp_path / "sweep"), "job": 3})
    assert facts["command"] == [Path(sys.argv[0]).name, *sys.argv[1:]]
    assert back[0].return_value == read_json(tmp_path / "sweep/3/results.json")["metrics"]["train/loss"]
    failed = back[1]._return_value
    reason = "nobody=1: nothing reads this key. Remove it, or put values of your own below vars: vars.nobody"
    assert failed.outcome == Outcome("failed", reason, 2)
