"""Compose a config without starting a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, open_dict

from fulgurite.compat.hydra import VERSION_BASE
from fulgurite.config.left_out import log_left_out
from fulgurite.config.tags import replace_tags
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.project import prepare_environment, project_root
from fulgurite.sources.answers import forget_answers, using_snapshot


def compose(
    overrides: Sequence[str] = (),
    *,
    config_name: str = "train",
    output_dir: str | Path | None = None,
    sources_of: str | Path | None = None,
) -> DictConfig:
    """Compose a config as an entry point does, without starting a run.

    Args:
        overrides: As on the command line, e.g. `["experiment=example", "trainer.max_epochs=1"]`.
        config_name: The config file in `configs/`, without `.yaml`.
        output_dir: Folder for what the run writes; `logs/<task_name>/interactive` when not given.
        sources_of: Run directory whose copies of remote configs are used; the sources are asked when not given.

    Example:
        >>> cfg = fulgurite.compose(["experiment=example", "trainer.max_epochs=1"])
    """
    prepare_environment()
    guard_configs()
    forget_answers()
    with using_snapshot(sources_of), initialize_config_dir(**VERSION_BASE, config_dir=str(project_root() / "configs")):
        cfg = hydra_compose(config_name, overrides=replace_tags(overrides))
    log_left_out()
    folder = output_dir or Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "interactive"
    return set_run_paths(cfg, Path(folder))


def set_run_paths(cfg: DictConfig, folder: Path) -> DictConfig:
    """Set the two paths that only a Hydra run resolves: the run directory and the working directory."""
    with open_dict(cfg):
        cfg.paths.output_dir, cfg.paths.work_dir = str(folder), str(Path.cwd())
    return cfg
