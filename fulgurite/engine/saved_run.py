"""Load a run directory in a notebook, a script or a test, without a Hydra context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from fulgurite.config.compose import set_run_paths
from fulgurite.config.view import leaves
from fulgurite.config.yaml_limits import check_config_file
from fulgurite.core.errors import UserError
from fulgurite.core.formatting import format_number, short_path
from fulgurite.core.project import prepare_environment
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import MASK
from fulgurite.runs.layout import CONFIG, RECORD
from fulgurite.runs.run_directory import RunDirectory, no_folder
from fulgurite.trust.run_directories import check_saved, check_weights
from fulgurite.trust.sources import Sources

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

log = RankedLogger(__name__)


@dataclass(frozen=True, repr=False)
class SavedRun:
    """A loaded run directory.

    Attributes:
        folder: The run directory.
        cfg: Its config.
        record: `run.json`; its `status` is `killed` for a run that could not record its end.
        results: `results.json`; empty if the run has none.
        metrics: Rows of `metrics.csv`, oldest first; each holds the metrics logged at its step.

    Example:
        >>> run = fulgurite.load_run("logs/train/runs/<run>")
        >>> run.record["status"], run.results["metrics"], run.model()
    """

    folder: Path
    cfg: DictConfig
    record: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, float]]

    def __repr__(self) -> str:
        """Return one line: the folder, how the run ended, and its test metrics, else all."""
        metrics = self.results.get("metrics") or {}
        names = [name for name in metrics if name.startswith("test/")] or list(metrics)
        numbers = "".join(f", {name} {format_number(metrics[name])}" for name in names)
        return f"SavedRun({short_path(self.folder)}: {self.record.get('status')}{numbers})"

    def model(self, weights: str | Path | None = None) -> LightningModule:
        """Return the model in eval mode with trained weights.

        Args:
            weights: A checkpoint; None loads the one that the results were measured on.

        Raises:
            UserError: The run has no checkpoint, or the checkpoint does not fit.
        """
        from fulgurite.checkpoints.loading import load, resolve_checkpoint
        from fulgurite.checkpoints.matching import matching_state
        from fulgurite.engine.build import build_component

        named = self.results.get("weights")
        path = weights or (named if isinstance(named, str) else "") or "checkpoints/last.ckpt"
        if not weights:
            check_weights(self.folder, self.folder / path, Sources())
        cfg = self.cfg.copy()
        with open_dict(cfg):
            cfg.ckpt_path, cfg.ckpt_sha256 = str(self.folder / path), None
        foreign = check_saved(self.cfg, self.folder)
        model = cast("LightningModule", build_component(cfg, "model", foreign))
        file = Path(str(resolve_checkpoint(cfg, model)))
        model.load_state_dict(matching_state(load(file), model, file), strict=model.strict_loading)
        return model.eval()

    def datamodule(self) -> LightningDataModule:
        """Return the run's data module, prepared and set up."""
        from fulgurite.engine.build import build_component

        foreign = check_saved(self.cfg, self.folder)
        data = cast("LightningDataModule", build_component(self.cfg, "data", foreign))
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data


def load_run(folder: str | Path) -> SavedRun:
    """Load the run directory `folder`, which holds `run.json`.

    Raises:
        UserError: The folder is not a run directory.

    Example:
        >>> model = fulgurite.load_run("logs/train/runs/<run>").model()
    """
    prepare_environment()
    folder = Path(folder).resolve()
    run = RunDirectory.of(folder)
    if run is None:
        wrong = f"has no readable {RECORD}" if folder.is_dir() else no_folder(folder)
        raise UserError(f"{folder}: {wrong}. Pass a run directory, e.g. logs/train/runs/<date>_<time>.")
    check_config_file(folder / CONFIG)
    cfg = OmegaConf.load(folder / CONFIG)
    assert isinstance(cfg, DictConfig)
    for key, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        if isinstance(value, str) and MASK in value:
            log.warning("%s=%s: the run's files hold no secret. Set run.cfg.%s before you build.", key, value, key)
    record = run.record | {"status": run.status}
    return SavedRun(folder, set_run_paths(cfg, folder), record, run.results, list(run.metric_rows()))
