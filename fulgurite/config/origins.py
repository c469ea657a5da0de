"""Where each key of a composed config was set: the file and line, or the override of the command line."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.config.override_text import without_null_groups
from fulgurite.config.tracing.settings import trace_settings
from fulgurite.core.errors import FulguriteError


class Origins:
    """The file and line, or the override, that set each key last."""

    def __init__(self, places: dict[str, str] | None = None) -> None:
        self.places = places or {}  # trainer.max_epochs -> configs/trainer/default.yaml:5

    def find(self, key: str) -> str | None:
        """Return where `key`, or else its nearest parent, was set; None when unknown."""
        while key:
            if key in self.places:
                return self.places[key]
            # an override below the key created it: +callbacks.x.patience=1 creates callbacks.x
            below = [place for other, place in self.places.items() if other.startswith((f"{key}.", f"{key}["))]
            if below:
                return below[-1]
            key = key[: key.rindex("[")] if key.endswith("]") else key.rpartition(".")[0]
        return None

    @classmethod
    def of(cls, cfg: DictConfig) -> Origins:
        """Trace the composed config of this process; empty without an initialized Hydra.

        Args:
            cfg: A config composed by `@hydra.main`, or by `compose(..., return_hydra_config=True)`.
        """
        if not GlobalHydra.instance().is_initialized():
            return cls()
        full: DictConfig | None = cfg if "hydra" in cfg else HydraConfig.instance().cfg  # type: ignore[assignment]
        hydra = full.hydra if full is not None else None
        if not isinstance(hydra, DictConfig):
            return cls()
        name = OmegaConf.select(hydra, "job.config_name", throw_on_missing=False)
        if name is None:
            return cls()
        # unresolved: an override may itself be an interpolation
        given = OmegaConf.to_container(hydra.overrides, resolve=False)
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(given, dict)
        assert isinstance(loader, ConfigLoaderImpl)
        return cls.traced(loader, str(name), [*given.get("hydra", []), *given.get("task", [])])

    @classmethod
    def traced(cls, loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> Origins:
        """Trace a composition by its defaults list and its overrides, including those of `hydra.`."""
        places: dict[str, str] = {}
        try:
            overrides = without_null_groups(overrides, loader.repository.group_exists)
            for setting in trace_settings(loader, config_name, overrides):
                places[setting.key] = setting.place
        except (FulguriteError, HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
            pass  # places only improve messages
        return cls(places)
