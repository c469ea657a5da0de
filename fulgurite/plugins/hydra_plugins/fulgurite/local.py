"""Hydra's launcher for jobs side by side on this machine: `hydra/launcher=local`. See `src/run/launchers/pool.py`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from fulgurite.launchers.slots import Slot


class LocalLauncher(Launcher):
    """Runs each job in a process of its own, as many at once as there are slots.

    Args:
        slots: Jobs that run at the same time; None is one a GPU, without any one for two cores.
        gpus: GPUs of each slot; None shares them out evenly.
        cpus: Cores of each slot; None shares them out evenly, 0 binds none.
    """

    def __init__(self, slots: int | None = None, gpus: int | None = None, cpus: int | None = None) -> None:
        self.slots, self.gpus, self.cpus = slots, gpus, cpus
        self.places: list[Slot] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Find the places that this machine has.

        Raises:
            ConfigError: It has not what is asked for.
            UserError: The system cannot copy a process.
        """
        # Hydra imports every plugin at every start, also to complete a word
        from fulgurite.core.errors import UserError
        from fulgurite.launchers.slots import allocate_slots

        if not hasattr(os, "fork"):
            raise UserError("hydra/launcher=local: needs a system that can fork, as Linux; leave it out here")

        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function
        self.places = allocate_slots(self.slots, self.gpus, self.cpus)

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Generator[tuple[int, JobReturn], None, None]:
        """Run jobs, each asked for when there is a slot for it, and yield each as it ends.

        Args:
            jobs: Number and words of each.
            at_once: The most slots that are used; None uses all.
        """
        from fulgurite.launchers.local_pool import LocalPool

        yield from LocalPool(self, self.places[:at_once]).stream(jobs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs for a sweeper that knows batches only.

        Args:
            job_overrides: The words of each.
            initial_job_idx: Number of the first.
        """
        returned: dict[int, Any] = dict(self.stream(enumerate(job_overrides, start=initial_job_idx)))
        return [returned[number] for number in sorted(returned)]
