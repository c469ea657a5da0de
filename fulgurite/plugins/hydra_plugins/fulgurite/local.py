"""Hydra launcher for concurrent jobs on this machine."""

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
    """Launcher that runs each job in its own process, one per slot.

    Args:
        slots: Number of concurrent jobs; None: one per GPU, without GPUs one per two cores.
        gpus: GPUs per slot; None divides them evenly.
        cpus: Cores per slot; None divides them evenly, 0 sets no affinity.
    """

    def __init__(self, slots: int | None = None, gpus: int | None = None, cpus: int | None = None) -> None:
        self.num_slots, self.gpus, self.cpus = slots, gpus, cpus
        self.slots: list[Slot] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Allocate the slots.

        Raises:
            ConfigError: The machine has fewer GPUs or cores.
            UserError: The system cannot fork.
        """
        # Hydra imports every plugin at every start, also for shell completion
        from fulgurite.core.errors import UserError
        from fulgurite.launchers.slots import allocate_slots

        if not hasattr(os, "fork"):
            raise UserError("hydra/launcher=local: this system cannot fork. Remove the override.")

        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function
        self.slots = allocate_slots(self.num_slots, self.gpus, self.cpus)

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Generator[tuple[int, JobReturn], None, None]:
        """Run jobs, each taken when a slot is free, and yield each as it ends."""
        from fulgurite.launchers.local_pool import LocalPool

        yield from LocalPool(self, self.slots[:at_once]).stream(jobs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, for sweepers without streaming."""
        returned: dict[int, Any] = dict(self.stream(enumerate(job_overrides, start=initial_job_idx)))
        return [returned[number] for number in sorted(returned)]
