"""Base class of the Hydra launchers of this library."""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class LazyLauncher(Launcher):
    """Launcher whose implementation is imported when a sweep starts.

    Args:
        settings: The keys of its config group.

    Attributes:
        implementation: Module with `check_settings` and `stream`. Hydra imports every plugin at every start, also for
            shell completion.
    """

    implementation: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }
        self.config: DictConfig | None = None
        self.task_function: TaskFunction | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what jobs need, and check the settings."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        importlib.import_module(self.implementation).check_settings(self.settings)

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Generator[tuple[int, JobReturn], None, None]:
        """Run jobs as slots become free, and yield each as it ends, in any order.

        Closing the generator stops the running jobs: they get SIGTERM, save, and are waited for. At most `at_once` jobs
        run at the same time, None: one in each slot. `length_hint(jobs)` is the number of jobs that are left, if known.
        """
        yield from importlib.import_module(self.implementation).stream(self, self.settings, jobs, at_once)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, for sweepers without streaming."""
        results = dict(self.stream(enumerate(job_overrides, initial_job_idx)))
        return [results[number] for number in sorted(results)]
