"""Jobs of a sweep in processes of this machine: a place each, the next one started as soon as a place is free.

This process imports what every run imports, once, and each job is a copy of it made by fork: start-up is paid once, and
nothing of a job (environment, process groups, memory) is left to the next. A job is a process group of its own, so that
a signal at the terminal reaches the sweep alone, which tells its jobs; it gets SIGTERM when the sweep dies.
"""

from __future__ import annotations

import gc
import importlib
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from fulgurite.core.errors import EXIT_CRASH, UserError
from fulgurite.core.proc import terminate_with_parent
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.job import RemoteJob
from fulgurite.launchers.progress import Progress
from fulgurite.launchers.slots import Slot
from fulgurite.runs.layout import RECORD
from fulgurite.runs.provenance import versions
from fulgurite.runs.run_json import mark_ended
from fulgurite.runs.sweep_ledger import record_event
from fulgurite.shutdown.signals import signals
from fulgurite.sweeps.dispatch import JobResult, NumberedJob, composition_failure
from fulgurite.validation.hydra_errors import HYDRA_ERRORS

CONSOLE_LOG = "console.log"  # in a job's folder: what it would have said at the terminal
PRELOADED = ("fulgurite.engine.build", "fulgurite.resume.restore", "fulgurite.checkpoints.loading", "torchmetrics")
POLL_SECONDS = 0.2  # seconds between two looks at whether a job has died
EXIT_SECONDS = 10.0  # seconds that a job has to end when it has returned, or was told to end at once


@dataclass
class RunningJob:
    """A job that has a process.

    Attributes:
        returned: What came of it; None while it has not said.
        until: When its process must have ended, by the monotonic clock; None while it runs.
    """

    job: RemoteJob
    place: Slot
    process: BaseProcess
    receiver: Connection
    returned: JobReturn | None = None
    until: float | None = None

    @property
    def pid(self) -> int:
        """Number of its process, and of its process group."""
        assert self.process.pid is not None
        return self.process.pid


class LocalPool:
    """Places and the jobs in them.

    Args:
        launcher: Set up by Hydra.
        places: One or more.
    """

    def __init__(self, launcher: Launcher, places: Sequence[Slot]) -> None:
        self.launcher = launcher
        self.free = list(places)
        self.running: list[RunningJob] = []
        self.progress = Progress(launcher.config, len(places))  # type: ignore[attr-defined]  # every launcher has it

    def stream(self, jobs: Iterator[NumberedJob]) -> Generator[JobResult, None, None]:
        """Run jobs and yield each as it ends; `Streaming` in streaming.py says how.

        Args:
            jobs: Number and words of each.
        """
        _preload()
        more = True
        try:
            with self.progress:
                while more or self.running:
                    while more and self.free:
                        if (given := next(jobs, None)) is None:
                            more = False
                        elif (failed := self._start(*given)) is not None:
                            yield failed
                    self.progress.show(jobs)
                    for number, returned in self._ended():
                        self.progress.ended(number, returned, jobs)
                        yield number, returned
        finally:
            if self.running:
                self._end()

    def _start(self, number: int, words: Sequence[str]) -> JobResult | None:
        try:
            job = RemoteJob.compose(self.launcher, number, words)
        except (*HYDRA_ERRORS, UserError) as error:
            return number, composition_failure(error)
        place = self.free.pop(0)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        # no daemon: data loaders and DDP start processes of their own
        process = multiprocessing.get_context("fork").Process(
            target=_run_job, args=(job, place, sender, os.getpid()), name=f"job {number}", daemon=False
        )
        process.start()
        sender.close()
        self.running.append(RunningJob(job, place, process, receiver))
        self.progress.started(number, words)
        return None

    def _ended(self) -> list[JobResult]:
        """Wait a moment for jobs to end and return those that did, their places free again."""
        # of one that has returned, the end of its process; of the others a result, or none and a look at the process
        wait([job.receiver if job.returned is None else job.process.sentinel for job in self.running], POLL_SECONDS)
        over = []
        for job in list(self.running):
            exited = job.process.exitcode is not None  # before the look for a result, which may have come in between
            if job.returned is None and job.receiver.poll():
                with suppress(EOFError, OSError):
                    job.returned, job.until = job.receiver.recv(), time.monotonic() + EXIT_SECONDS
            if job.until is not None and not exited and time.monotonic() > job.until:
                self._kill(job)
                exited = True
            if exited:
                over.append((job.job.number, self._close(job)))
        return over

    def _close(self, job: RunningJob) -> JobReturn:
        """Free the place of a job whose process has ended, and tell of one that could not do so itself."""
        job.process.join()
        job.receiver.close()
        self.running.remove(job)
        self.free.append(job.place)
        self.free.sort(key=lambda place: place.number)
        if job.returned is None:
            _kill_group(job.pid)  # of what it had started
            job.returned = self._died(job)
        return job.returned

    def _died(self, job: RunningJob) -> JobReturn:
        code = job.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            if job.until is not None:
                why = f": it had not ended {job.job.grace:g} s after SIGTERM (resilience.grace_seconds)"
            outcome = Outcome("killed", f"killed by {name}{why}", 128 - code)
        else:
            outcome = Outcome("failed", f"the process ended with code {code} and no word", code or EXIT_CRASH)
        folder, number = job.job.folder, job.job.number
        if mark_ended(folder, *vars(outcome).values()) or not (folder / RECORD).is_file():
            record_event(
                {"dir": str(job.job.sweep), "job": number},
                outcome.status,
                run=folder,
                reason=outcome.reason,
                exit_code=outcome.exit_code,
            )
        return JobReturn(status=JobStatus.FAILED, _return_value=JobFailed(outcome))

    def _end(self) -> None:
        """Tell all jobs to end, wait for each as long as its grace lasts, and leave none."""
        with signals.deferred():
            self._tell()
            told_again = False
            for job in self.running:
                job.until = min(job.until or math.inf, time.monotonic() + job.job.grace + EXIT_SECONDS)
            while self.running:
                if signals.late and not told_again:
                    told_again = True
                    self._tell()
                    for job in self.running:
                        job.until = min(job.until or math.inf, time.monotonic() + EXIT_SECONDS)
                self._ended()

    def _tell(self) -> None:
        for job in self.running:
            with suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGTERM)

    def _kill(self, job: RunningJob) -> None:
        _kill_group(job.pid)
        job.process.kill()  # where it has not come to have a group of its own
        job.process.join()


def _preload() -> None:
    """Import what every run needs, in this process, of which the jobs are copies."""
    gc.disable()  # imports make next to no garbage, and to look for it takes a tenth of their time
    for name in PRELOADED:
        importlib.import_module(name)
    versions()  # kept; to find them takes as long as all else that a record tells
    gc.freeze()  # a collection in a job would write to, and so copy, all that it shares with the others
    gc.enable()


def _run_job(job: RemoteJob, slot: Slot, sender: Connection, parent: int) -> None:
    """Run a job in the process that was started for it."""
    os.setpgid(0, 0)
    terminate_with_parent(parent)
    job.folder.mkdir(parents=True, exist_ok=True)
    console = os.open(job.folder / CONSOLE_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(console, stream)
    os.close(console)
    slot.bind()
    sender.send(job.run())


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
