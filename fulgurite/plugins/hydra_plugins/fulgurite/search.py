"""Hydra sweeper for Optuna searches, implemented in `fulgurite.search`."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Sweeper with the settings of hydra-optuna-sweeper, and `pruner`.

    The arguments are unused: it reads the sweep's unresolved config. They are listed so that others are refused.
    """

    def __init__(
        self,
        direction: Any = None,
        n_trials: Any = None,
        n_jobs: Any = None,
        storage: Any = None,
        study_name: Any = None,
        sampler: Any = None,
        pruner: Any = None,
        max_failure_rate: Any = None,
        params: Any = None,
        search_space: Any = None,
        custom_search_space: Any = None,
    ) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the sweep's config, and instantiate its launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials up to `n_trials`."""
        # Hydra imports every plugin at every start, also for shell completion
        from fulgurite.search.runner import run_search

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        return run_search(self.config, self.hydra_context, self.launcher, arguments)
