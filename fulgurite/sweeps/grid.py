"""Run a grid sweep: expand, validate, record the plan, run what is not done."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from fulgurite.compat.hydra import ConfigLoaderImpl, raise_failure, returned_value
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.formatting import counted, show_plan
from fulgurite.core.rank_logging import rank
from fulgurite.core.redact import mask_override, saved_config
from fulgurite.distributed.rendezvous import barrier
from fulgurite.distributed.supervision.failures import clear_failures
from fulgurite.engine.run_directory_callback import ReserveRunDirectory
from fulgurite.runs.lock import run_lock
from fulgurite.runs.sweep_ledger import append_event, first_plan, ledger_state, read_events, record_failure
from fulgurite.sweeps.code_state import CodeState, print_status
from fulgurite.sweeps.config_cache import ConfigCache
from fulgurite.sweeps.dispatch import NumberedJob, run_jobs
from fulgurite.sweeps.jobs import (
    DONE,
    FAILED,
    KILLED,
    NEW,
    Job,
    JobsFailed,
    check_jobs,
    describe_jobs,
    expand_grid,
    typed_overrides,
    varying_overrides,
)
from fulgurite.sweeps.places import param_places
from fulgurite.sweeps.resume import (
    archive_failed_job,
    describe_states,
    find_sweep,
    has_other_config,
    restore_job_states,
    resume_overrides,
)

STOP = "stop"
SLOW_CHECK_JOBS = 50  # number of jobs whose validation takes some seconds


def run_grid(sweeper: Any, overrides: Sequence[str]) -> list[Sequence[JobReturn]]:
    """Run the jobs of a grid that are not done, and return one batch of results.

    The sweeper is a `BasicSweeper` after its `setup`; its type allows None for all that it has then.

    Raises:
        Exception: The exception of the first failed job, after the last job.
    """
    config, loader = sweeper.config, sweeper.hydra_context.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    options = config.get("sweep") or {}
    with param_places(config, typed_overrides(config)[1]):
        jobs = expand_grid(overrides, loader)
        resumed = find_sweep(str(options["resume"]), config) if options.get("resume") else None
        if resumed is not None:
            restore_job_states(jobs, resumed)
            jobs.sort(key=lambda job: job.number)
        code = CodeState()
        ConfigCache(loader)
        _check_sweep(jobs, config, loader)
    retry = bool(options.get("retry_failed"))
    if resumed is not None:
        print_status(f"sweep: resuming {resumed}: {describe_states(jobs, retry=retry)}")
    if options.get("dry_run"):
        _print_plan(jobs, retry=retry)
        return []
    folder = ReserveRunDirectory.reserve_sweep(config, resumed)
    with run_lock(folder):
        _record_plan(folder, config, jobs, code)
        return _GridLoop(sweeper, folder, jobs, code).run(retry=retry, stop=options.get("on_error") == STOP)


def _check_sweep(jobs: Sequence[Job], config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Validate all jobs, and find what the killed ones resume from."""
    changed: list[Job] = []
    if len(jobs) >= SLOW_CHECK_JOBS:
        print_status(f"sweep: checking {counted(len(jobs), 'job')}")

    def find_more(job: Job, cfg: DictConfig) -> list[str]:
        if job.state == KILLED:
            return resume_overrides(job, cfg)
        if job.state == DONE and has_other_config(job, cfg):
            changed.append(job)
        return []

    check_jobs(jobs, config, loader, find_more)
    if changed:
        print_status(f"warning: sweep: {describe_jobs(changed, jobs)} done with another config: a file has changed")


def _record_plan(folder: Path, config: DictConfig, jobs: Sequence[Job], code: CodeState) -> None:
    """Write the plan into the ledger, and the jobs whose end it lacks."""
    if rank() != 0:
        return
    (folder / "multirun.yaml").write_text(saved_config(config), encoding="utf-8")
    events = read_events(folder)
    code.warn_if_changed_since(first_plan(events))
    last = {event["job"]: event["event"] for event in events if "job" in event}
    for job in jobs:
        if last.get(job.number) == "started" and job.state in {KILLED, FAILED}:
            append_event(folder, job.state, job=job.number, key=job.key, reason=job.reason, exit_code=None)
    planned = [{"job": job.number, "key": job.key, "words": [*map(mask_override, job.overrides)]} for job in jobs]
    command = [mask_override(argument) for argument in current_context().argv]
    append_event(folder, "plan", jobs=planned, code=code.digest, command=command)


class _GridLoop:
    """Runs the jobs of one start of a grid."""

    def __init__(self, sweeper: Any, folder: Path, jobs: Sequence[Job], code: CodeState) -> None:
        self.launcher, self.at_once, self.config = sweeper.launcher, sweeper.max_batch_size, sweeper.config
        self.folder, self.jobs, self.code = folder, {job.number: job for job in jobs}, code

    def run(self, *, retry: bool, stop: bool) -> list[Sequence[JobReturn]]:
        states = {NEW, KILLED, *([FAILED] if retry else [])}
        queue = _JobQueue([job for job in self.jobs.values() if job.state in states], self._next_job)
        results: dict[int, JobReturn] = {}
        with closing(run_jobs(self.launcher, queue, self.at_once)) as running:
            for number, result in running:
                results[number] = result
                if result.status == JobStatus.FAILED:
                    self._record_failure(self.jobs[number], returned_value(result))
                    queue.is_stopped = stop
        if queue.is_stopped:
            jobs_left = counted(len(queue.remaining), "job")
            print_status(f"sweep stopped by sweep.on_error={STOP}: {jobs_left} not started")
        in_order = [results[number] for number in sorted(results)]
        for result in in_order:
            raise_failure(result)
        skipped = [job for job in self.jobs.values() if job.state == FAILED and not retry]
        if skipped:
            reasons = "; ".join(f"job {job.number} failed: {job.reason}" for job in skipped)
            raise JobsFailed(f"{reasons}. Pass sweep.retry_failed=true to retry.")
        return [in_order]

    def _next_job(self, job: Job) -> NumberedJob:
        """Prepare the folder of a job that starts now, and return its overrides."""
        consequence = f". Jobs from {job.number} on run the new code with the configs that were validated."
        self.code.record_changes(self.folder, job.number, consequence)
        if rank() == 0 and job.folder is not None:
            if job.state != KILLED:
                kept = archive_failed_job(job, self.folder)
                append_event(self.folder, "again", job=job.number, key=job.key, kept=kept)
            clear_failures(job.folder)
        ledger_state(self.folder)  # read here once: a job is a fork of this process and inherits what was read
        barrier(self.config, "job")  # until rank 0 has archived the folder, which all ranks then make again
        return job.number, job.all_overrides(self.folder)

    def _record_failure(self, job: Job, error: BaseException) -> None:
        """Report a job that failed before it had a record of its own."""
        line = f"error: {describe_jobs([job], [*self.jobs.values()])}: {error}"
        if rank() > 0 and isinstance(error, UserError):  # rank 0 may have accepted the job, and the ledger is rank 0's
            sys.stderr.write(f"[rank {rank()}] {line}\n")
        if rank() == 0 and record_failure(self.folder, job.number, job.key, error):
            print_status(line)


class _JobQueue(Iterator[NumberedJob]):
    """The jobs to run, each prepared when a launcher takes it."""

    def __init__(self, jobs: Sequence[Job], prepare: Callable[[Job], NumberedJob]) -> None:
        self.remaining, self.prepare, self.is_stopped = deque(jobs), prepare, False

    def __next__(self) -> NumberedJob:
        if self.is_stopped or not self.remaining:
            raise StopIteration
        return self.prepare(self.remaining.popleft())

    def __length_hint__(self) -> int:
        return 0 if self.is_stopped else len(self.remaining)


def _print_plan(jobs: Sequence[Job], *, retry: bool) -> None:
    varying = varying_overrides(jobs) if len(jobs) > 1 else set(jobs[0].overrides)
    actions = {NEW: "to start", KILLED: "to resume", DONE: "done", FAILED: "to retry" if retry else "failed"}
    rows: list[tuple[Any, ...]] = []
    for job in jobs:
        values = " ".join(mask_override(item) for item in job.overrides if item in varying)
        rows.append((str(job.number), values, actions[job.state]))
    show_plan(rows, [mask_override(override) for override in jobs[0].overrides if override not in varying])
