"""Run sweep jobs in forked processes of this machine, one per slot.

A fork starts fast, and leaves no environment or memory to the next job. A job has its own Unix process group, so that
Ctrl-C reaches the sweep only, which forwards it.
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
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from fulgurite.compat.hydra import failed_job
from fulgurite.core.errors import EXIT_CRASH, UserError
from fulgurite.core.proc import terminate_with_parent
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.job import RemoteJob
from fulgurite.launchers.progress import Progress
from fulgurite.launchers.slots import Slot, allocate_slots
from fulgurite.runs.layout import CONSOLE_LOG, RECORD
from fulgurite.runs.provenance import versions
from fulgurite.runs.run_directory import mark_ended
from fulgurite.shutdown.signals import signal_handler
from fulgurite.sweeps.dispatch import JobResult, NumberedJob, composition_failure
from fulgurite.validation.hydra_errors import HYDRA_ERRORS

PRELOADED = ("fulgurite.engine.build", "fulgurite.resume.restore", "fulgurite.checkpoints.loading", "torchmetrics")
POLL_SECONDS = 0.2
EXIT_SECONDS = 10.0  # to exit after a job has returned, or after the second signal


@dataclass
class RunningJob:
    """A job with its process and slot."""

    job: RemoteJob
    slot: Slot
    process: BaseProcess
    receiver: Connection
    returned: JobReturn | None = None  # its result; None until it arrives
    deadline: float | None = None  # monotonic time by which the process must exit; None without one

    @property
    def pid(self) -> int:
        """ID of its process and process group."""
        assert self.process.pid is not None
        return self.process.pid


def check_settings(settings: dict[str, Any]) -> None:
    """Require that this system can fork, and has the GPUs and cores of the slots."""
    if not hasattr(os, "fork"):
        raise UserError("hydra/launcher=local: this system cannot fork. Remove the override.")
    allocate_slots(**settings)


def stream(
    launcher: Launcher, settings: dict[str, Any], jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Generator[JobResult, None, None]:
    """Run jobs, each taken when a slot is free, and yield each as it ends."""
    yield from LocalPool(launcher, allocate_slots(**settings)[:at_once]).stream(jobs)


class LocalPool:
    """Slots and the jobs that run in them."""

    def __init__(self, launcher: Launcher, slots: Sequence[Slot]) -> None:
        self.launcher = launcher
        self.free = list(slots)
        self.running: list[RunningJob] = []
        self.progress = Progress(launcher.config, len(slots))  # type: ignore[attr-defined]  # every launcher has it

    def stream(self, jobs: Iterator[NumberedJob]) -> Generator[JobResult, None, None]:
        """Run jobs and yield each as it ends."""
        _preload()
        has_next = True
        try:
            with self.progress:
                while has_next or self.running:
                    while has_next and self.free:
                        if (job := next(jobs, None)) is None:
                            has_next = False
                        elif (failed := self._start(*job)) is not None:
                            yield failed
                    self.progress.show(jobs)
                    for number, returned in self._pop_ended():
                        self.progress.ended(number, returned, jobs)
                        yield number, returned
        finally:
            if self.running:
                self._stop_all()

    def _start(self, number: int, overrides: Sequence[str]) -> JobResult | None:
        try:
            job = RemoteJob.compose(self.launcher, number, overrides)
        except (*HYDRA_ERRORS, UserError) as error:
            return number, composition_failure(error)
        slot = self.free.pop(0)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        # no daemon: a daemon must not start data loader workers or child ranks
        process = multiprocessing.get_context("fork").Process(
            target=_run_job, args=(job, slot, sender, os.getpid()), name=f"job {number}", daemon=False
        )
        process.start()
        sender.close()
        self.running.append(RunningJob(job, slot, process, receiver))
        self.progress.started(number, overrides)
        return None

    def _pop_ended(self) -> list[JobResult]:
        """Wait up to POLL_SECONDS, and return the jobs that ended."""
        # wake up on results, and on the exit of processes that returned theirs
        wait([job.receiver if job.returned is None else job.process.sentinel for job in self.running], POLL_SECONDS)
        ended = []
        for job in list(self.running):
            exited = job.process.exitcode is not None  # read before the result, which may arrive in between
            if job.returned is None and job.receiver.poll():
                with suppress(EOFError, OSError):
                    job.returned, job.deadline = job.receiver.recv(), time.monotonic() + EXIT_SECONDS
            if job.deadline is not None and not exited and time.monotonic() > job.deadline:
                _kill_group(job.pid)
                job.process.kill()  # if it has no process group yet
                exited = True
            if exited:
                ended.append((job.job.number, self._close(job)))
        return ended

    def _close(self, job: RunningJob) -> JobReturn:
        """Free the slot of a job whose process exited, and record its death."""
        job.process.join()
        job.receiver.close()
        self.running.remove(job)
        self.free.append(job.slot)
        self.free.sort(key=lambda slot: slot.number)
        if job.returned is None:
            _kill_group(job.pid)  # its child processes
            job.returned = self._record_death(job)
        return job.returned

    def _record_death(self, job: RunningJob) -> JobReturn:
        code = job.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            why = " (out of memory?)" if name == "SIGKILL" else ""
            if job.deadline is not None:
                why = f": it did not exit within {job.job.grace:g} s after SIGTERM (resilience.grace_seconds)"
            outcome = Outcome("killed", f"killed by {name}{why}", 128 - code)
        else:
            reason = f"the process exited with code {code} without reporting a reason"
            outcome = Outcome("failed", reason, code or EXIT_CRASH)
        folder = job.job.folder
        if mark_ended(folder, *vars(outcome).values()) or not (folder / RECORD).is_file():
            job.job.record_outcome(outcome)
        return failed_job(JobFailed(outcome))

    def _stop_all(self) -> None:
        """Send all jobs SIGTERM, wait for each within its grace period, then kill it."""
        with signal_handler().deferred():
            self._terminate_jobs()
            killed_early = False
            while self.running:
                if signal_handler().pending and not killed_early:
                    killed_early = True
                    self._terminate_jobs(has_grace=False)
                self._pop_ended()

    def _terminate_jobs(self, *, has_grace: bool = True) -> None:
        for job in self.running:
            with suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGTERM)
            seconds = EXIT_SECONDS + (job.job.grace if has_grace else 0)
            job.deadline = min(job.deadline or math.inf, time.monotonic() + seconds)


def _preload() -> None:
    """Import what every run needs, before jobs are forked."""
    gc.disable()  # collections during imports take a tenth of the time and find almost no garbage
    for name in PRELOADED:
        importlib.import_module(name)
    versions()  # cached: takes as long as the rest of a run record
    gc.freeze()  # a collection in a job would write to, and so copy, the shared pages
    gc.enable()


def _run_job(job: RemoteJob, slot: Slot, sender: Connection, parent: int) -> None:
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
