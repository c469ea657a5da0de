"""Hydra's sweeper for grids: `-m a=1,2 b=3,4`. What it does is written in `src/run/sweeps/`."""

from __future__ import annotations

from typing import Any

from fulgurite.compat.hydra import BasicSweeper


class GridSweeper(BasicSweeper):
    """Takes what Hydra's own sweeper takes; every job is composed and checked first, and a sweep can go on."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs that a command line asks for.

        Args:
            arguments: Its words, without those for Hydra itself.
        """
        # Hydra imports every plugin at every start, also to complete a word
        from fulgurite.sweeps.grid import run_grid

        return run_grid(self, [*self._parse_config(), *arguments])
