"""A grid from its command line to its last job: planned and checked whole, then run, each job told in the ledger."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import BasicSweeper, ConfigLoaderImpl
from fulgurite.config.override_text import quoted
from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.formatting import show_plan
from fulgurite.core.rank_logging import rank
from fulgurite.core.redact import shown_word
from fulgurite.distributed.agreement import barrier
from fulgurite.distributed.supervision.failures import clear_failures
from fulgurite.engine.record import RunRecord
from fulgurite.engine.run_directory_callback import ReserveRunDirectory
from fulgurite.runs.lock import run_lock
from fulgurite.runs.sweep_ledger import append, ledger_state, note_failed, plan_of, read
from fulgurite.sweeps.code_state import CodeState
from fulgurite.sweeps.config_cache import ConfigCache
from fulgurite.sweeps.dispatch import NumberedJob, run_jobs
from fulgurite.sweeps.jobs import (
    DONE,
    FAILED,
    KILLED,
    NEW,
    Job,
    check_jobs,
    describe_jobs,
    expand_grid,
    varying_overrides,
)
from fulgurite.sweeps.resume import (
    archive_failed_job,
    describe_states,
    find_sweep,
    has_other_config,
    restore_job_states,
    resume_overrides,
)

STOP = "stop"
SLOW_CHECK_JOBS = 50  # jobs that take some seconds to compose and check


def run_grid(sweeper: BasicSweeper, words: Sequence[str]) -> list[Sequence[JobReturn]]:
    """Run the jobs of a grid, or what is left of one.

    Args:
        sweeper: Holds the sweep's config, Hydra's context and the launcher.
        words: The command line's, without those for Hydra itself.

    Returns:
        What the jobs returned, in their order, as Hydra wants it: in a list of batches.

    Raises:
        ConfigError: Findings about the jobs; nothing was run and no folder made.
        UserError: The sweep that was named cannot go on.
        Exception: What the first job that failed has raised, after the last job.
    """
    config, context = sweeper.config, sweeper.hydra_context
    assert config is not None
    assert context is not None
    loader = context.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    asked = config.get("sweep") or {}
    jobs = expand_grid(words, loader)
    earlier = find_sweep(str(asked["resume"]), config) if asked.get("resume") else None
    if earlier is not None:
        restore_job_states(jobs, earlier)
        jobs.sort(key=lambda job: job.number)
    code = CodeState()
    ConfigCache(loader)
    _check_sweep(jobs, config, loader)
    retry = bool(asked.get("retry_failed"))
    if rank() == 0 and earlier is not None:
        _say(f"sweep: going on with {earlier}: {describe_states(jobs, retry=retry)}")
    if asked.get("dry_run"):
        _print_plan(jobs, retry=retry)
        return []
    folder = ReserveRunDirectory.reserve_sweep(config, earlier)
    with run_lock(folder):
        _record_plan(folder, config, jobs, code)
        return _GridLoop(sweeper, folder, jobs, code).run(retry=retry, stop=asked.get("on_error") == STOP)


def _check_sweep(jobs: Sequence[Job], config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Refuse a sweep in which something is wrong, and find what its killed jobs go on from."""
    others: list[Job] = []
    if len(jobs) >= SLOW_CHECK_JOBS:
        _say(f"sweep: checking {len(jobs)} jobs")

    def look(job: Job, cfg: DictConfig) -> list[str]:
        if job.state == KILLED:
            return resume_overrides(job, cfg)
        if job.state == DONE and has_other_config(job, cfg):
            others.append(job)
        return []

    check_jobs(jobs, config, loader, look)
    if others and rank() == 0:
        _say(f"warning: sweep: {describe_jobs(others, jobs)} done with another config: a file has changed since")


def _record_plan(folder: Path, config: DictConfig, jobs: Sequence[Job], code: CodeState) -> None:
    """Write the plan into the ledger, and what it does not know yet of jobs that were killed."""
    if rank() != 0:
        return
    OmegaConf.save(config, folder / "multirun.yaml")
    events = read(folder)
    before = plan_of(events)
    if before is not None and before["code"] != code.digest:
        _say("warning: sweep: src/ and configs/ are not as they were when the sweep began")
    last = {event["job"]: event["event"] for event in events if "job" in event}
    for job in jobs:
        if last.get(job.number) == "started" and job.state in {KILLED, FAILED}:
            append(folder, job.state, job=job.number, key=job.key, reason=job.reason, exit_code=None)
    planned = [{"job": job.number, "key": job.key, "words": [*map(shown_word, job.words)]} for job in jobs]
    command = [shown_word(word) for word in RunRecord.typed or sys.argv]
    append(folder, "plan", jobs=planned, code=code.digest, command=command)


class _GridLoop:
    """What the jobs of one start have in common."""

    def __init__(self, sweeper: BasicSweeper, folder: Path, jobs: Sequence[Job], code: CodeState) -> None:
        assert sweeper.launcher is not None
        self.launcher, self.at_once = sweeper.launcher, sweeper.max_batch_size
        self.folder, self.jobs, self.code = folder, jobs, code
        assert sweeper.config is not None
        self.config = sweeper.config

    def run(self, *, retry: bool, stop: bool) -> list[Sequence[JobReturn]]:
        wanted = {NEW, KILLED, *([FAILED] if retry else [])}
        todo = _JobQueue([job for job in self.jobs if job.state in wanted], self._next_job)
        returned: dict[int, JobReturn] = {}
        with closing(run_jobs(self.launcher, todo, self.at_once)) as running:
            for number, ended in running:
                returned[number] = ended
                if ended.status == JobStatus.FAILED:
                    self._note_silent(number, ended._return_value)
                    todo.is_over = stop
        if todo.is_over:
            _say(f"sweep stopped by sweep.on_error={STOP}: {len(todo.left)} jobs not started")
        in_order = [returned[number] for number in sorted(returned)]
        for job in in_order:
            if job.status == JobStatus.FAILED:
                _ = job.return_value  # raises what the job has raised
        left = [job for job in self.jobs if job.state == FAILED and not retry]
        if left:
            reasons = "; ".join(f"job {job.number} failed: {job.reason}" for job in left)
            raise PreviousFailures(f"{reasons}; sweep.retry_failed=true tries again")
        return [in_order]

    def _look_at_code(self, job: Job) -> None:
        if rank() == 0 and (files := self.code.changes()):
            append(self.folder, "changed", before=job.number, files=files)
            shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
            _say(
                f"warning: sweep: changed while it runs: {shown}; jobs from {job.number} on "
                "run code as it is now, with the configs that they were checked with"
            )

    def _next_job(self, job: Job) -> NumberedJob:
        """Return the words of a job that is to be run now."""
        self._look_at_code(job)
        if job.state != KILLED and job.folder is not None and rank() == 0:
            kept = archive_failed_job(job, self.folder)
            where = str(kept.relative_to(self.folder)) if kept else None
            append(self.folder, "again", job=job.number, key=job.key, kept=where)
        if job.folder is not None and rank() == 0:
            clear_failures(job.folder)
        ledger_state(self.folder)  # what is read here a job that is a copy of this process need not read
        barrier(self.config, "job")  # before a folder that rank 0 has set aside is made anew
        return job.number, [*job.words, *job.more, *self._place(job)]

    def _note_silent(self, number: int, error: BaseException) -> None:
        """Tell of a job that failed before it had a record in which to say so."""
        [job] = [job for job in self.jobs if job.number == number]
        line = f"error: {describe_jobs([job], self.jobs)}: {error}"
        if rank() > 0 and isinstance(error, UserError):  # the ledger is rank 0's, for which this job may be right
            sys.stderr.write(f"[rank {rank()}] {line}\n")
        if rank() == 0 and note_failed(self.folder, job.number, job.key, error):
            _say(line)

    def _place(self, job: Job) -> Iterator[str]:
        """Yield the word that keeps a job in its folder where that is not named by its number."""
        if job.folder is not None and job.folder != self.folder / str(job.number):
            yield f"hydra.sweep.subdir={quoted(job.folder.relative_to(self.folder))}"


class PreviousFailures(FulguriteError):
    """Jobs failed in an earlier start of the sweep and were not asked for again."""


class _JobQueue(Iterator[NumberedJob]):
    """The jobs that are left, looked at when they are asked for."""

    def __init__(self, jobs: Sequence[Job], hand_out: Callable[[Job], NumberedJob]) -> None:
        self.left, self.hand_out, self.is_over = deque(jobs), hand_out, False

    def __next__(self) -> NumberedJob:
        if self.is_over or not self.left:
            raise StopIteration
        return self.hand_out(self.left.popleft())

    def __length_hint__(self) -> int:
        return 0 if self.is_over else len(self.left)


def _print_plan(jobs: Sequence[Job], *, retry: bool) -> None:
    differ = varying_overrides(jobs) if len(jobs) > 1 else set(jobs[0].words)
    todo = {NEW: "to start", KILLED: "to go on", DONE: "done", FAILED: "to be tried again" if retry else "failed"}
    rows: list[tuple[Any, ...]] = [
        (str(job.number), " ".join(shown_word(word) for word in job.words if word in differ), todo[job.state])
        for job in jobs
    ]
    show_plan(rows, [shown_word(word) for word in jobs[0].words if word not in differ])


def _say(line: str) -> None:
    if rank() == 0:
        sys.stderr.write(f"{line}\n")
