"""Dispatch jobs to any launcher, each when there is a slot for it."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from hydra.core.utils import JobReturn

from fulgurite.compat.hydra import failed_job
from fulgurite.core.errors import UserError
from fulgurite.validation.hydra_errors import HYDRA_ERRORS, one_line

NumberedJob = tuple[int, Sequence[str]]  # number of the job, and its overrides
JobResult = tuple[int, JobReturn]  # number of the job, and what Hydra returns for it


def run_jobs(
    launcher: Any, jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Generator[JobResult, None, None]:
    """Run jobs and yield each with its number as it ends, in any order.

    A search asks its study for a trial in `jobs`, and reports each result to it. When `jobs` stops,
    the running jobs are still yielded. A job that can no longer be composed is yielded as a failed one. With `at_once`
    None, a launcher without slots, which has no `stream`, gets all jobs in one batch.
    """
    from fulgurite.compat.hydra import BasicLauncher  # at each use: see there

    if hasattr(launcher, "stream"):
        with closing(launcher.stream(jobs, at_once)) as results:
            yield from results
        return
    logging.getLogger(BasicLauncher.__module__).setLevel(logging.WARNING)  # each job logs a line with its values
    # Hydra's basic launcher runs jobs one after the other: batches of one ask for a job when the last one has ended
    for batch in _batches(jobs, 1 if isinstance(launcher, BasicLauncher) else at_once):
        try:
            returned = launcher.launch([list(overrides) for _, overrides in batch], initial_job_idx=batch[0][0])
        except (*HYDRA_ERRORS, UserError) as error:
            returned = [composition_failure(error) for _ in batch]
        yield from zip((number for number, _ in batch), returned, strict=True)


def composition_failure(error: Exception) -> JobReturn:
    """Return the result of a job that a changed file keeps from being composed."""
    return failed_job(UserError(f"the config can no longer be composed: {one_line(error)}"))


def _batches(jobs: Iterator[NumberedJob], size: int | None) -> Iterator[list[NumberedJob]]:
    """Yield batches with consecutive numbers, which Hydra's launchers count up."""
    batch: list[NumberedJob] = []
    for number, overrides in jobs:
        if batch and number != batch[-1][0] + 1:
            yield batch
            batch = []
        batch.append((number, overrides))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
