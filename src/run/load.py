"""Configs and finished runs in plain Python: notebooks, scripts, tests. Needs no Hydra context."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from src.base.errors import UserError
from src.base.root import prepare_environment, project_root
from src.run.compat import VERSION_BASE
from src.run.config_files import check_config_file, guard_configs
from src.run.tags import replace_tags

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule


def load_config(
    overrides: Sequence[str] = (), *, door: str = "train", output_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config as a door would, without starting a run.

    Args:
        overrides: As on the command line, e.g. `["experiment=example", "trainer.max_epochs=1"]`.
        door: `train` or `eval`.
        output_dir: Folder for what the run writes; `logs/<task_name>/interactive` when not given.
    """
    prepare_environment()
    guard_configs()
    with initialize_config_dir(**VERSION_BASE, config_dir=str(project_root() / "configs")):
        cfg = compose(door, overrides=replace_tags(overrides))
    folder = output_dir or Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "interactive"
    return _placed(cfg, Path(folder))


@dataclass(frozen=True)
class SavedRun:
    """A run directory, read.

    Attributes:
        folder: The run directory.
        cfg: The config it was made from.
        record: `run.json`.
        results: `results.json`; empty when the run did not get that far.
        metrics: Rows of `metrics.csv`, oldest first; a metric that was not logged at a step is not in its row.
    """

    folder: Path
    cfg: DictConfig
    record: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, float]]

    def model(self, weights: str | Path | None = None) -> LightningModule:
        """Return the model in eval mode with trained weights.

        Args:
            weights: A checkpoint; the one the results were measured on when not given.

        Raises:
            UserError: The run has no checkpoint, or the checkpoint does not fit.
        """
        from src.run.build import build_part
        from src.run.weights import given_weights, load

        path = weights or self.results.get("weights") or "checkpoints/last.ckpt"
        cfg = self.cfg.copy()
        with open_dict(cfg):
            cfg.ckpt_path, cfg.ckpt_sha256 = str(self.folder / path), None
        model = cast("LightningModule", build_part(cfg, "model"))
        model.load_state_dict(load(Path(str(given_weights(cfg, model))))["state_dict"])
        return model.eval()

    def datamodule(self) -> LightningDataModule:
        """Return the data module the run was trained with, prepared and set up."""
        from src.run.build import build_part

        data = cast("LightningDataModule", build_part(self.cfg, "data"))
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data


def load_run(folder: str | Path) -> SavedRun:
    """Read a run directory.

    Args:
        folder: The directory that holds `run.json`.

    Raises:
        UserError: The folder is no run directory.
    """
    prepare_environment()
    folder = Path(folder).resolve()
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder}: holds no run.json; give a run directory, e.g. logs/train/runs/<date>_<time>")
    check_config_file(folder / ".hydra" / "config.yaml")
    cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(cfg, DictConfig)
    results, metrics = folder / "results.json", folder / "metrics.csv"
    rows: list[dict[str, float]] = []
    if metrics.is_file():
        with metrics.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return SavedRun(
        folder=folder,
        cfg=_placed(cfg, folder),
        record=json.loads((folder / "run.json").read_text()),
        results=json.loads(results.read_text()) if results.is_file() else {},
        metrics=rows,
    )


def _placed(cfg: DictConfig, folder: Path) -> DictConfig:
    """Answer what only a live Hydra run could: where the run writes and where it was started."""
    with open_dict(cfg):
        cfg.paths.output_dir, cfg.paths.work_dir = str(folder), str(Path.cwd())
    return cfg
