"""One way to hand out jobs, whatever the launcher: the next is asked for when there is a place to run it.

A launcher that runs several jobs at once has a method `stream(jobs)` (`StreamingLauncher`): it asks for the next job
only when a slot is free, and yields each job as it ends. Any other launcher of Hydra's has `launch`, which returns
when all jobs it was given have ended: Hydra's own gets them one by one, others in batches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from fulgurite.compat.hydra import BasicLauncher
from fulgurite.core.errors import UserError
from fulgurite.validation.hydra_errors import HYDRA_ERRORS, one_line

NumberedJob = tuple[int, Sequence[str]]  # number of the job, and its words
JobResult = tuple[int, JobReturn]  # number of the job, and what became of it


@runtime_checkable
class StreamingLauncher(Protocol):
    """A launcher with places that are filled again as soon as one is free."""

    def stream(self, jobs: Iterator[NumberedJob], at_once: int | None = None) -> Generator[JobResult, None, None]:
        """Run jobs, each asked for when there is a place for it, and yield each as it ends, in any order.

        Closing the generator ends what is running: jobs are told by SIGTERM, save, and are waited for.

        Args:
            jobs: Number and words of each. Where it knows how many it has left, `operator.length_hint` tells.
            at_once: The most jobs that may run at the same time; None leaves that to the places.
        """
        ...


def run_jobs(
    launcher: Launcher, jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Generator[JobResult, None, None]:
    """Run jobs and yield each with its number as it ends, in any order.

    A sweeper that searches lets `jobs` ask for a trial when the next is wanted, and tells the result as it is yielded.
    One that wants no more jobs ends `jobs`; those that run are still yielded.

    Args:
        launcher: Set up by Hydra.
        jobs: Number and words of each.
        at_once: The most jobs at the same time; None leaves that to the launcher, which is given all where it has no
            places of its own.

    Yields:
        A job that cannot be composed any more is a failed one.
    """
    if isinstance(launcher, StreamingLauncher):
        with closing(launcher.stream(jobs, at_once)) as running:
            yield from running
        return
    # one by one where jobs run one after the other: the next is looked at when the one before has ended
    for batch in _batches(jobs, 1 if isinstance(launcher, BasicLauncher) else at_once):
        try:
            returned = launcher.launch([list(words) for _, words in batch], initial_job_idx=batch[0][0])
        except (*HYDRA_ERRORS, UserError) as error:
            returned = [composition_failure(error) for _ in batch]
        yield from zip((number for number, _ in batch), returned, strict=True)


def composition_failure(error: Exception) -> JobReturn:
    """Return a job that failed because it cannot be composed: it could before the first one, so a file has changed."""
    wrong = UserError(f"cannot be composed any more: {one_line(error)}")
    return JobReturn(status=JobStatus.FAILED, _return_value=wrong)


def _batches(jobs: Iterator[NumberedJob], size: int | None) -> Iterator[list[NumberedJob]]:
    """Yield jobs with consecutive numbers together: a launcher counts on from the first."""
    batch: list[NumberedJob] = []
    for number, words in jobs:
        if batch and number != batch[-1][0] + 1:
            yield batch
            batch = []
        batch.append((number, words))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
