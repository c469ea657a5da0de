"""What runs is what was checked: the configs of a grid's jobs are kept, and no file that changes later changes them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class Composed:
    """Answers in place of a loader, which every launcher asks for the config of a job when its turn comes.

    Composing takes a tenth of a second, which a free slot would wait for; what is kept is there in a fiftieth of that.

    Args:
        loader: Hydra's own, of this sweep.
        config: The sweep's config, as it is while the jobs are checked.
    """

    def __init__(self, loader: ConfigLoaderImpl, config: DictConfig) -> None:
        self._compose = loader.load_sweep_config
        self._num_known = len(config.hydra.overrides.hydra)
        self._kept: dict[tuple[str, ...], bytes] = {}
        loader.load_sweep_config = self.load  # type: ignore[method-assign]

    def keep(self, words: Sequence[str], cfg: DictConfig) -> None:
        """Keep the config of a job.

        Args:
            words: The job's overrides.
            cfg: As it was composed, with Hydra's part; some 25 kB are kept of it.
        """
        self._kept[tuple(words)] = pickle.dumps(cfg)

    def load(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return a job's config: the one that was kept, else, as for a job that goes on, one composed now.

        Args:
            master_config: The sweep's config; words for Hydra that it got since, such as its folder, are applied.
            sweep_overrides: The job's.
        """
        packed = self._kept.get(tuple(sweep_overrides))
        if packed is None:
            return self._compose(master_config, sweep_overrides)
        cfg: DictConfig = pickle.loads(packed)  # noqa: S301 - packed above, by this process
        since = [str(word) for word in master_config.hydra.overrides.hydra[self._num_known :]]
        ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(since), cfg)
        with read_write(cfg.hydra.overrides), open_dict(cfg.hydra.overrides):
            given = cfg.hydra.overrides.hydra
            cfg.hydra.overrides.hydra = [*given[: self._num_known], *since, *given[self._num_known :]]
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the sweep's ${now:...} is that of its jobs
        return cfg
