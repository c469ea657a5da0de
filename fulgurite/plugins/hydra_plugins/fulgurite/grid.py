"""Hydra sweeper for grids (`-m a=1,2 b=3`), implemented in `fulgurite.sweeps`."""

from __future__ import annotations

from typing import Any

from fulgurite.compat.hydra import BasicSweeper


class GridSweeper(BasicSweeper):
    """BasicSweeper that validates every job first and can resume a sweep."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs of a grid."""
        # Hydra imports every plugin at every start, also for shell completion
        from fulgurite.sweeps.grid import run_grid

        return run_grid(self, [*self._parse_config(), *arguments])
