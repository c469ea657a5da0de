"""What Hydra's launchers for schedulers have in common: they take their keys, and hand jobs over one by one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ScheduledLauncher(Launcher):
    """Hands jobs to a scheduler.

    Args:
        settings: The keys of its config.

    Attributes:
        runs_on: Module that knows the scheduler: `checked` takes the keys, `stream` the jobs. Only its name, because
            Hydra imports every plugin at every start, also to complete a word.
    """

    runs_on: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        self.settings = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in settings.items()
        }
        self.config: DictConfig | None = None
        self.task_function: TaskFunction | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what jobs need, and refuse keys that cannot be used."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        importlib.import_module(self.runs_on).check_settings(self.settings)

    def stream(
        self, jobs: Iterator[tuple[int, Sequence[str]]], at_once: int | None = None
    ) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs, as `src/run/launchers/streaming.py` says."""
        yield from importlib.import_module(self.runs_on).stream(self, self.settings, jobs, at_once)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, for sweepers that know of nothing else."""
        ended = dict(self.stream(iter(enumerate(job_overrides, initial_job_idx))))
        return [ended[number] for number in sorted(ended)]
