"""Restore a resumed run once its objects are built, before training starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from fulgurite.checkpoints.loading import describe_source, is_sharded, load, resolve_checkpoint
from fulgurite.checkpoints.manifest import logged_before, manifest_of, manifest_step
from fulgurite.checkpoints.matching import matching_state
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.loggers.metrics_csv import drop_rows_from
from fulgurite.resume.optimizer_settings import LoadOptimizerState, OverrideRestoredSettings, RequireSameOptimizer
from fulgurite.runs.layout import CONTINUE, HOTSTART, LOGGED, STAGED_CONFIG_DIR
from fulgurite.runs.run_directory import resumed_run

log = RankedLogger(__name__)

NEWER_DIR = "newer"  # holds the checkpoints that are newer than the one to resume from


@dataclass(frozen=True)
class ResumedRun:
    """A run that resumes in its own directory."""

    folder: Path
    step: int  # optimizer steps of the checkpoint; 0 without one
    loggers: Mapping[str, str]  # run ID of each logger, from run.json
    logged_step: int = 0  # of the loggers' next values; differs from `step` with several optimizers or validations
    num_rows: int | None = None  # of metrics.csv at the save; None in a checkpoint that does not have it


def find_resumed_run(cfg: DictConfig) -> ResumedRun | None:
    """Return the run that `plan_resume` set in a config; None for a new run."""
    if (run := resumed_run(cfg)) is None:
        return None
    step = int(_step_of(Path(cfg.ckpt_path))) if cfg.ckpt_path else 0
    rows, logged = (_logged_before(Path(cfg.ckpt_path)) if cfg.ckpt_path else None) or (None, step)
    return ResumedRun(run.folder, step, dict(run.record.get("loggers") or {}), logged, rows)


def restore(cfg: DictConfig, model: LightningModule, trainer: Trainer, resumed: ResumedRun | None) -> str | None:
    """Add the callbacks that restore a run to the trainer, and return the checkpoint to resume from.

    `resume.mode=weights` and `hotstart` load the weights here, and return None as for a new run.

    Raises:
        UserError: The checkpoint is missing, damaged or for another model.
    """
    skip = list(OmegaConf.select(cfg, "resume.skip", default=()))  # rejected with resume.mode=continue
    path = resolve_checkpoint(cfg, model, skip, trainer)
    mode = str(OmegaConf.select(cfg, "resume.mode", default=CONTINUE))
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    if path is not None and mode != CONTINUE and cfg.get("train"):
        checkpoint = load(Path(path))
        state = matching_state(checkpoint, model, Path(path), skip, sharded=is_sharded(trainer))
        model.load_state_dict(state, strict=model.strict_loading and not skip)
        if mode == HOTSTART:
            callbacks.append(LoadOptimizerState(checkpoint.get("optimizer_states") or [], path, skip))
        log.info("%s: starting from the weights of %s, step %s", mode, path, checkpoint.get("global_step"))
        return None
    reset, apply = (list(OmegaConf.select(cfg, f"resume.{name}", default=())) for name in ("reset", "apply"))
    if path is not None:
        if reset or apply:
            callbacks.insert(0, OverrideRestoredSettings(reset, apply))
        if "optimizer" not in reset:
            callbacks.append(RequireSameOptimizer(describe_source(cfg, Path(path))))
        trainer.num_sanity_val_steps = 0  # the run did its sanity check at its first start
    if resumed is not None and rank() == 0:
        _rewind(resumed, trainer)
        callbacks.append(PromoteStagedConfig(resumed.folder))
    return path


def _rewind(resumed: ResumedRun, trainer: Trainer) -> None:
    """Drop metrics rows and archive checkpoints after the step to resume from; training makes them again."""
    num_rows = drop_rows_from(resumed.folder, resumed.logged_step, resumed.num_rows)
    log.info("resuming %s from step %d", resumed.folder, resumed.step)
    if num_rows:
        log.info("dropped %d later %s of metrics.csv", num_rows, "row" if num_rows == 1 else "rows")
    savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    folders = [Path(saver.dirpath) for saver in savers if saver.dirpath is not None]
    for folder in dict.fromkeys([resumed.folder / "checkpoints", *folders]):
        if folder.is_relative_to(resumed.folder):
            _archive_newer(folder, resumed)


def _archive_newer(folder: Path, resumed: ResumedRun) -> None:
    newer = [path for path in sorted(folder.glob("*.ckpt")) if _step_of(path) > resumed.step]
    for path in newer:
        (folder / NEWER_DIR).mkdir(exist_ok=True)
        for file in (path, manifest_of(path)):
            if file.exists():
                file.replace(folder / NEWER_DIR / file.name)
    if newer:
        moved = ", ".join(path.name for path in newer)
        log.info("moved newer checkpoints to %s: %s", (folder / NEWER_DIR).relative_to(resumed.folder), moved)


def _step_of(path: Path) -> float:
    """Return the step of a checkpoint; infinity for a file that cannot be read."""
    if manifest_of(path).is_file():
        return manifest_step(path)
    try:
        return int(load(path).get("global_step") or 0)
    except UserError:
        return math.inf


def _logged_before(path: Path) -> tuple[int, int] | None:
    """Return rows and step of the loggers at a save; a kill right after it leaves a file without a manifest."""
    if manifest_of(path).is_file():
        return logged_before(path)
    logged = load(path).get(LOGGED) if path.is_file() else None
    return (logged["rows"], logged["step"]) if logged else None


class PromoteStagedConfig(Callback):
    """Callback that replaces the config in a run directory by the one that Hydra staged for the resume.

    It does so in `on_fit_start`, when every rank has accepted the resume.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the staged files."""
        staged = self.folder / STAGED_CONFIG_DIR
        if trainer.is_global_zero and staged.is_dir():
            for path in staged.iterdir():
                path.replace(staged.parent / path.name)
            staged.rmdir()
