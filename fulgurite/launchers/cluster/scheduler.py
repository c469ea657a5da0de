"""Submit a sweep's jobs to a scheduler, wait for them, and stop them."""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from fulgurite.compat.hydra import failed_job
from fulgurite.core.errors import EXIT_CRASH, UserError, did_you_mean
from fulgurite.core.project import project_root
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.job import RemoteJob
from fulgurite.launchers.progress import Progress
from fulgurite.runs.layout import RECORD
from fulgurite.runs.run_directory import mark_ended
from fulgurite.shutdown.signals import signal_handler
from fulgurite.sweeps.dispatch import NumberedJob, composition_failure
from fulgurite.validation.hydra_errors import HYDRA_ERRORS

STARTUP_SECONDS = 30.0  # until a started job handles signals, on top of its grace period
RETRY_SECONDS = 30.0  # between submissions to a full queue; a job that ends cuts the wait short
QUEUE_FULL_SECONDS = 1800.0  # that the queue may stay full while it holds no job of the sweep
KILL_SECONDS = 10.0  # for killed jobs to exit


class JobLost(Exception):
    """A job ended without a result, for the scheduler's reason in the message."""


class QueueFull(Exception):
    """The scheduler temporarily accepts no job, for the reason in the message."""


class Scheduler(Protocol):
    """Interface to a scheduler, in which `submit` returns the handle of a job."""

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Hashable:
        """Submit a job, or raise `QueueFull`."""

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return the handles of jobs that ended, within about a second."""

    def result(self, handle: Any) -> JobReturn | str:
        """Return the result of a job that ended, or why it could not start."""

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Ask running jobs to save and exit, and cancel the others."""

    def kill(self, handles: Sequence[Any]) -> None:
        """Kill jobs."""

    def close(self) -> None:
        """Release the sweep's resources."""


def submit_jobs(
    scheduler: Scheduler, launcher: Launcher, jobs: Iterator[NumberedJob], slots: int
) -> Iterator[tuple[int, JobReturn]]:
    """Submit jobs while the queue accepts them, and yield each as it ends."""
    config: Any = launcher.config  # type: ignore[attr-defined]
    submitted = _SubmittedJobs(scheduler)
    try:
        with Progress(config, slots) as progress:
            more, given = True, None  # given: the next job, which may wait for the queue
            while more or given or submitted.jobs:
                while (more or given) and len(submitted.jobs) < slots and time.monotonic() >= submitted.retry_at:
                    if given is None and (given := next(jobs, None)) is None:
                        more = False
                        break
                    try:
                        if not submitted.submit(RemoteJob.compose(launcher, *given)):
                            continue
                        progress.started(*given, "submitted")
                    except HYDRA_ERRORS as error:
                        yield given[0], composition_failure(error)
                    given = None
                progress.waiting = int(given is not None)
                progress.show(jobs)
                for number, returned in submitted.ended():
                    progress.ended(number, returned, jobs)
                    yield number, returned
    finally:
        try:
            submitted.stop_all()
        finally:
            scheduler.close()


class _SubmittedJobs:
    """The submitted jobs of a sweep."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.jobs: dict[Any, RemoteJob] = {}
        self.has_accepted = self.has_reported_full = False
        self.retry_at = 0.0  # monotonic; in the future while the queue is full
        self.full_since: float | None = None  # monotonic

    def submit(self, job: RemoteJob) -> bool:
        """Submit a job, or return False if the queue is full."""
        envelope = JobEnvelope(str(project_root()), str(job.sweep), pickle.dumps(job))
        try:
            with signal_handler().deferred():  # a submitted job must be registered here, or nothing stops it
                self.jobs[self.scheduler.submit(job, envelope)] = job
        except QueueFull as error:
            now = time.monotonic()
            self.full_since = self.full_since or now
            if not self.has_accepted or (not self.jobs and now - self.full_since > QUEUE_FULL_SECONDS):
                raise UserError(
                    f"job {job.number}: the scheduler did not accept it ({error}). Try again later."
                ) from error
            if not self.has_reported_full:
                self.has_reported_full = True
                sys.stderr.write(f"sweep: the scheduler accepts no more jobs for now: {error}\n")
            self.retry_at = now + RETRY_SECONDS
            return False
        self.has_accepted, self.full_since = True, None
        return True

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        for handle in self.scheduler.ended(list(self.jobs)):
            self.retry_at = 0.0
            yield self.jobs[handle].number, self._settle(handle, self.jobs.pop(handle))

    def stop_all(self) -> None:
        """Request all jobs to stop, wait, and kill the rest."""
        if not self.jobs:
            return
        seconds = max(job.grace for job in self.jobs.values()) + STARTUP_SECONDS
        numbers = ", ".join(str(job.number) for job in self.jobs.values())
        remedy = "Signal again to kill them."
        sys.stderr.write(f"sweep: stopping jobs {numbers}; they save within {seconds:g} s. {remedy}\n")
        with signal_handler().deferred():
            self.scheduler.request_stop(list(self.jobs))
            self._wait(seconds, until_signal=True)
            if self.jobs:
                self.scheduler.kill(list(self.jobs))
                self._wait(KILL_SECONDS)

    def _wait(self, seconds: float, *, until_signal: bool = False) -> None:
        until = time.monotonic() + seconds
        while self.jobs and time.monotonic() < until and not (until_signal and signal_handler().pending):
            for handle in self.scheduler.ended(list(self.jobs)):
                job = self.jobs.pop(handle)
                if (job.folder / RECORD).is_file():  # a job that had not started counts as never submitted
                    self._settle(handle, job)

    def _settle(self, handle: Any, job: RemoteJob) -> JobReturn:
        """Return a job's result, and record it if the job could not."""
        try:
            returned = self.scheduler.result(handle)
        except JobLost as error:
            returned = str(error)
        return returned if isinstance(returned, JobReturn) else self._lost(job, returned)

    def _lost(self, job: RemoteJob, reason: str) -> JobReturn:
        """Record a job without a result: killed if it had started, else failed."""
        has_started = (job.folder / RECORD).is_file()
        outcome = Outcome("killed" if has_started else "failed", reason, EXIT_CRASH)
        if has_started and mark_ended(job.folder, outcome.status, reason, EXIT_CRASH):
            job.record_outcome(outcome)
        return failed_job(JobFailed(outcome))


def import_package(package: str, launcher: str) -> ModuleType:
    """Import a launcher's package, or name the command that installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"hydra/launcher={launcher}: needs the package {package}, which is not installed. "
            f'Run pip install -e ".[{launcher}]".'
        ) from error


def check_types(given: dict[str, Any], types: dict[str, tuple[type, ...]], launcher: str) -> None:
    """Check names and types of a launcher's settings, which are listed in `types`.

    Numbers must be positive; `num_`, `max_` and `gpus_` keys may be 0.
    """
    wrong = []
    for key, value in given.items():
        setting = f"hydra.launcher.{key}={value}"
        if key not in types:
            near = did_you_mean(key, types) or f". It has {', '.join(types)}"
            wrong.append(f"{setting}: hydra/launcher={launcher} has no such key{near}")
        elif not isinstance(value, types[key]) or (isinstance(value, bool) and bool not in types[key]):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types[key])
            wrong.append(f"{setting}: must be {wanted}")
        elif isinstance(value, (int, float)) and value < (0 if key.startswith(("num_", "max_", "gpus_")) else 1e-9):
            wrong.append(f"{setting}: must be positive")
    if wrong:
        raise UserError("\n".join(wrong))
