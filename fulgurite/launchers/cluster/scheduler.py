"""A sweep's jobs that a scheduler runs (Slurm, Ray): handed over as there is room, waited for, ended with the sweep."""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from fulgurite.core.errors import EXIT_CRASH, UserError, did_you_mean
from fulgurite.core.project import project_root
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.job import RemoteJob
from fulgurite.launchers.progress import Progress
from fulgurite.runs.layout import RECORD
from fulgurite.runs.run_json import mark_ended
from fulgurite.runs.sweep_ledger import record_event
from fulgurite.shutdown.signals import signals
from fulgurite.sweeps.dispatch import NumberedJob, composition_failure
from fulgurite.validation.hydra_errors import HYDRA_ERRORS

STARTUP_SECONDS = 30.0  # a job handles signals only after its start; beside resilience.grace_seconds
RETRY_SECONDS = (
    30.0  # seconds between two tries to hand over a job for which there is no room; at once when one has ended
)
QUEUE_FULL_SECONDS = 1800.0  # seconds that a scheduler which has no job of the sweep may take none
KILL_SECONDS = 10.0  # seconds that jobs which were ended at once may take to be gone


class JobLost(Exception):
    """A job ended and left no result; the message says what the scheduler knows of it."""


class QueueFull(Exception):
    """The scheduler takes no job for now; the message says why."""


class Scheduler(Protocol):
    """What the jobs of one sweep are handed to; a job is known by what `submit` returned."""

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Hashable:
        """Hand over a job.

        Raises:
            QueueFull: It takes none for now.
        """
        ...

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return those that have ended, within about a second."""
        ...

    def result(self, handle: Any) -> JobReturn | str:
        """Return what a job that ended has returned; a line where it could not begin.

        Raises:
            Lost: It left nothing.
        """
        ...

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Ask jobs to end: those that run finish their step and save, the others do not begin."""
        ...

    def kill(self, handles: Sequence[Any]) -> None:
        """End jobs at once."""
        ...

    def close(self) -> None:
        """Free what was taken for the sweep."""
        ...


def submit_jobs(
    scheduler: Scheduler, launcher: Launcher, jobs: Iterator[NumberedJob], slots: int
) -> Iterator[tuple[int, JobReturn]]:
    """Hand jobs over as there is room for them and yield each as it ends; closed, it has them all ended.

    Args:
        scheduler: To hand them to.
        launcher: Set up by Hydra.
        jobs: Number and words of each.
        slots: The most jobs that wait or run there at once.

    Yields:
        Number and `JobReturn` of each, in the order in which they end.
    """
    config: Any = launcher.config  # type: ignore[attr-defined]
    submitted = _SubmittedJobs(scheduler)
    try:
        with Progress(config, slots) as progress:
            more, given = True, None  # given: a job that may have to wait for room
            while more or given or submitted.jobs:
                while (more or given) and len(submitted.jobs) < slots and submitted.can_submit():
                    if given is None and (given := next(jobs, None)) is None:
                        more = False
                        break
                    try:
                        if not submitted.submit(RemoteJob.compose(launcher, *given)):
                            continue
                        progress.started(*given, "handed over")
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
            submitted.end()
        finally:
            scheduler.close()


class _SubmittedJobs:
    """The jobs that a scheduler has of a sweep.

    Args:
        scheduler: Has them.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.jobs: dict[Any, RemoteJob] = {}
        self.has_taken = self.has_told = False  # that the scheduler has a job; that others wait
        self.try_at = 0.0  # by the monotonic clock; later than now while there is no room
        self.without_room: float | None = None  # since when

    def can_submit(self) -> bool:
        """Tell whether the scheduler may have room."""
        return time.monotonic() >= self.try_at

    def submit(self, job: RemoteJob) -> bool:
        """Hand over a job; False where there is no room now, and it is to be tried again.

        Raises:
            UserError: There was no room for too long, or for the first job already.
        """
        envelope = JobEnvelope(str(project_root()), str(job.sweep), pickle.dumps(job))
        try:
            with signals.deferred():  # a job that was handed over and is not known here would be nobody's
                self.jobs[self.scheduler.submit(job, envelope)] = job
        except QueueFull as error:
            now = time.monotonic()
            self.without_room = self.without_room or now
            if not self.has_taken or (not self.jobs and now - self.without_room > QUEUE_FULL_SECONDS):
                raise UserError(f"job {job.number} was not taken by the scheduler: {error}") from error
            if not self.has_told:
                self.has_told = True
                sys.stderr.write(f"sweep: the scheduler takes no more jobs for now, the others wait: {error}\n")
            self.try_at = now + RETRY_SECONDS
            return False
        self.has_taken, self.without_room = True, None
        return True

    def ended(self) -> Iterator[tuple[int, JobReturn]]:
        for handle in self.scheduler.ended(list(self.jobs)):
            self.try_at = 0.0
            yield self.jobs[handle].number, self._settle(handle, self.jobs.pop(handle))

    def end(self) -> None:
        """End the jobs of a sweep that ends: ask them, wait, and end those that have not ended by then.

        Raises:
            Stopped: A further signal has come, after which none is waited for.
        """
        if not self.jobs:
            return
        patience = max(job.grace for job in self.jobs.values()) + STARTUP_SECONDS
        told = ", ".join(str(job.number) for job in self.jobs.values())
        sys.stderr.write(f"sweep: asking jobs {told} to save and end, within {patience:g} s; again ends them at once\n")
        with signals.deferred():
            self.scheduler.request_stop(list(self.jobs))
            self._wait(patience, heeding=True)
            if self.jobs:
                self.scheduler.kill(list(self.jobs))
                self._wait(KILL_SECONDS)

    def _wait(self, seconds: float, *, heeding: bool = False) -> None:
        until = time.monotonic() + seconds
        while self.jobs and time.monotonic() < until and not (heeding and signals.late):
            for handle in self.scheduler.ended(list(self.jobs)):
                job = self.jobs.pop(handle)
                if (job.folder / RECORD).is_file():  # one that had not begun is as if it had never been handed over
                    self._settle(handle, job)

    def _settle(self, handle: Any, job: RemoteJob) -> JobReturn:
        """Return what became of a job, and write it down where the job could not."""
        try:
            returned = self.scheduler.result(handle)
        except JobLost as error:
            returned = str(error)
        return returned if isinstance(returned, JobReturn) else self._lost(job, returned)

    def _lost(self, job: RemoteJob, reason: str) -> JobReturn:
        """Tell of a job that ended without a word: one that had begun was killed and can go on, any other failed."""
        begun = (job.folder / RECORD).is_file()
        outcome = Outcome("killed" if begun else "failed", reason, EXIT_CRASH)
        if begun and mark_ended(job.folder, outcome.status, reason, EXIT_CRASH):
            sweep = {"dir": str(job.sweep), "job": job.number}
            record_event(sweep, outcome.status, run=job.folder, reason=reason, exit_code=EXIT_CRASH)
        return JobReturn(status=JobStatus.FAILED, _return_value=JobFailed(outcome))


def import_package(package: str, launcher: str) -> ModuleType:
    """Import a package that a launcher needs.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"hydra/launcher={launcher}: needs the package {package}, which is not installed; "
            f'pip install -e ".[{launcher}]"'
        ) from error


def check_types(given: dict[str, Any], types: dict[str, tuple[type, ...]], launcher: str) -> dict[str, Any]:
    """Check the keys of a launcher.

    Args:
        given: What the config says.
        types: Of each key's values. A number is to be above 0; one of `num_`, `max_` and `gpus_` may be 0.
        launcher: Its name.

    Raises:
        UserError: A key or a value that it does not take; all of them, one line each.
    """
    wrong = []
    for key, value in given.items():
        place = f"hydra.launcher.{key}={value}"
        if key not in types:
            near = did_you_mean(key, types) or f". It has {', '.join(types)}"
            wrong.append(f"{place}: hydra/launcher={launcher} has no such key{near}")
        elif not isinstance(value, types[key]) or (isinstance(value, bool) and bool not in types[key]):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types[key])
            wrong.append(f"{place}: must be {wanted}")
        elif isinstance(value, (int, float)) and value < (0 if key.startswith(("num_", "max_", "gpus_")) else 1e-9):
            wrong.append(f"{place}: must be above 0")
    if wrong:
        raise UserError("\n".join(wrong))
    return given
