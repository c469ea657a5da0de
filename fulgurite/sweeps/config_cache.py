"""What runs is what was checked: files are read for a grid's first jobs, and no change to them later changes a job."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import ConfigLoaderImpl, get_overrides_dirname
from fulgurite.core.files import unpack


class ConfigCache:
    """Answers in place of a loader, which sweepers and launchers ask for the config of a job.

    Jobs that choose the same files differ in values alone, so these are set in a copy of what the files came to. That
    takes a tenth of the time of composing, which all jobs would wait for at the start, and a free slot once more.

    Args:
        loader: Hydra's own, of this sweep.
    """

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self._loader, self._compose = loader, loader.load_sweep_config
        # by the words that choose files: how many words for Hydra the sweep had then, and the pickled config
        self._bases: dict[tuple[str, ...], tuple[int, bytes]] = {}
        loader.load_sweep_config = self.load  # type: ignore[method-assign]

    def load(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return a job's config, as Hydra's own would have composed it when the files were read.

        Args:
            master_config: The sweep's config. Words for Hydra that it got since, such as its folder, are applied.
            sweep_overrides: The job's words.
        """
        words = OverridesParser.create(config_loader=self._loader).parse_overrides(sweep_overrides)
        values = [] if master_config.hydra.searchpath else [word for word in words if self._is_value(word)]
        base = tuple(str(word.input_line) for word in words if word not in values)
        # a word may name what only a job has, e.g. ${hydra.runtime.output_dir}
        of_hydra = OmegaConf.to_container(master_config.hydra.overrides.hydra, resolve=False)
        assert isinstance(of_hydra, list)
        if base not in self._bases:
            self._bases[base] = len(of_hydra), pickle.dumps(self._compose(master_config, list(base)))
        known, packed = self._bases[base]
        cfg: DictConfig = unpack(packed)
        since = OverridesParser.create().parse_overrides(of_hydra[known:])
        ConfigLoaderImpl._apply_overrides_to_config([*since, *values], cfg)
        _record_overrides(cfg, words, known, of_hydra)
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the sweep's ${now:...} is that of its jobs
        return cfg

    def _is_value(self, word: Override) -> bool:
        """Tell whether a word sets values alone, by the rule by which Hydra tells them from those that choose files."""
        if word.is_hydra_override() or word.is_sweep_override() or word.package is not None:
            return False
        return isinstance(word.value(), dict) or not self._loader.repository.group_exists(word.key_or_group)


def _record_overrides(cfg: DictConfig, words: Sequence[Override], known: int, of_hydra: Sequence[str]) -> None:
    """Have a config tell the words of its job, as Hydra does."""
    own = [word for word in words if not word.is_hydra_override()]
    told, how = cfg.hydra.overrides, cfg.hydra.job.config.override_dirname
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        told.task = [word.input_line for word in own]
        told.hydra = [*of_hydra, *told.hydra[known:]]
        cfg.hydra.job.override_dirname = get_overrides_dirname(
            overrides=own, kv_sep=how.kv_sep, item_sep=how.item_sep, exclude_keys=how.exclude_keys
        )
