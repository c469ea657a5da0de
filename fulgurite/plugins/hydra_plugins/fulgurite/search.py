"""Hydra's sweeper for searches: Optuna asks for the next values. What it does is written in `src/run/search/`."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Takes what Hydra's own sweeper with Optuna takes, and `pruner`: see fulgurite/conf/hydra/sweeper/search.yaml.

    Args:
        settings: Those keys; they are read from the sweep's config, which is not resolved yet.
    """

    def __init__(self, **settings: Any) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has for the sweep, and make its launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials until there are as many as were asked for.

        Args:
            arguments: Words of the command line, without those for Hydra itself.
        """
        # Hydra imports every plugin at every start, also to complete a word
        from fulgurite.search.runner import run_search

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        return run_search(self.config, self.hydra_context, self.launcher, arguments)
