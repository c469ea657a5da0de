"""Validate a search of Hydra's own sweeper `optuna`, which composes a trial only when it starts."""

from __future__ import annotations

from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.engine.outcome import exit_on_user_error


class ValidateOptunaSearch(Callback):
    """Hydra callback that validates the space of `hydra/sweeper=optuna` before its directory is made.

    Hydra calls it before `ReserveRunDirectory`. The library's sweepers validate their jobs themselves.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Validate trials that together have every choice and every bound; exit with code 2 on an error."""
        if not str(config.hydra.sweeper.get("_target_", "")).endswith(".OptunaSweeper"):
            return
        # Optuna takes most of a second, and Hydra instantiates its callbacks at every start
        from fulgurite.search.preflight import check_trials
        from fulgurite.search.space import read_space
        from fulgurite.sweeps.jobs import typed_overrides
        from fulgurite.sweeps.places import param_places

        overrides = typed_overrides(config)[1]
        with exit_on_user_error(), param_places(config, overrides):
            space = read_space(overrides, config.hydra.sweeper)
            check_trials(space, config, cast("ConfigLoaderImpl", GlobalHydra.instance().config_loader()))
