"""Hydra sweeper for Optuna searches, implemented in `fulgurite.search`."""

from __future__ import annotations

from typing import Any

from fulgurite.compat.hydra import BasicSweeper


class SearchSweeper(BasicSweeper):
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
        super().__init__(max_batch_size=None)

    def sweep(self, arguments: list[str]) -> Any:
        """Run trials up to `n_trials`."""
        # Hydra imports every plugin at every start, also for shell completion
        from fulgurite.search.runner import run_search

        sweeper: Any = self  # its types allow None, which `setup` has replaced
        return run_search(sweeper.config, sweeper.hydra_context, sweeper.launcher, arguments)
