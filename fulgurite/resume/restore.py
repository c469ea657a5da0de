"""Restore an earlier run after everything is built and before training starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from fulgurite.checkpoints.loading import load, resolve_checkpoint
from fulgurite.checkpoints.manifest import manifest_of, manifest_step
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.loggers.metrics_csv import drop_rows_from
from fulgurite.resume.optimizer_settings import LoadOptimizerState, OverrideRestoredSettings, RequireSameOptimizer
from fulgurite.runs.layout import CONTINUE, HOTSTART, STAGED_CONFIG_DIR
from fulgurite.runs.run_directory import resumed_run

log = RankedLogger(__name__)

NEWER_DIR = "ahead"  # folder for checkpoints that are newer than the one gone on from


@dataclass(frozen=True)
class ResumedRun:
    """A run that goes on in its own directory.

    Attributes:
        folder: The run directory.
        step: Optimizer steps that the checkpoint holds; 0 where there is none and the run begins again.
        loggers: ID of each logger's run, as `run.json` keeps them.
    """

    folder: Path
    step: int
    loggers: Mapping[str, str]


def find_resumed_run(cfg: DictConfig) -> ResumedRun | None:
    """Return the run that a config goes on with; None for a new run.

    Args:
        cfg: A composed config in which `choose_start` has put the directory and the checkpoint.
    """
    if (run := resumed_run(cfg)) is None:
        return None
    step = _step_of(Path(cfg.ckpt_path)) if cfg.ckpt_path else 0
    return ResumedRun(run.folder, int(step), dict(run.record.get("loggers") or {}))


def restore(cfg: DictConfig, model: LightningModule, trainer: Trainer, resumed: ResumedRun | None) -> str | None:
    """Restore what the config asks for from an earlier run, and return the checkpoint to resume from.

    With `resume.mode=weights` or `hotstart` the model gets the weights here, and the trainer a callback that loads the
    optimizer's state; None is returned then, as for a new run.

    Args:
        cfg: A composed config.
        model: The built model.
        trainer: The built trainer; callbacks are added to it.
        resumed: The run that is resumed in its own directory, from `find_resumed_run`; None for a new run.

    Raises:
        UserError: The checkpoint is missing, damaged or of another model.
    """
    given = resolve_checkpoint(cfg, model)
    mode = str(OmegaConf.select(cfg, "resume.mode", default=CONTINUE))
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    if given is not None and mode != CONTINUE and cfg.get("train"):
        checkpoint = load(Path(given))
        model.load_state_dict(checkpoint["state_dict"])
        if mode == HOTSTART:
            callbacks.append(LoadOptimizerState(checkpoint.get("optimizer_states") or [], given))
        log.info("%s: starting from the weights of %s, step %s", mode, given, checkpoint.get("global_step"))
        return None
    reset, apply = (list(OmegaConf.select(cfg, f"resume.{name}", default=())) for name in ("reset", "apply"))
    if given is not None and (reset or apply):
        callbacks.insert(0, OverrideRestoredSettings(reset, apply))
    if given is not None:
        if "optimizer" not in (OmegaConf.select(cfg, "resume.reset") or ()):
            callbacks.append(RequireSameOptimizer(given))
        trainer.num_sanity_val_steps = 0  # the run had its sanity check before it stopped
    if resumed is not None and rank() == 0:
        _rewind(resumed)
        callbacks.append(PromoteStagedConfig(resumed.folder))
    return given


def _rewind(earlier: ResumedRun) -> None:
    """Make a run directory what it was at the checkpoint's step."""
    rows = drop_rows_from(earlier.folder, earlier.step)
    ahead = _archive_newer_checkpoints(earlier.folder / "checkpoints", earlier.step)
    log.info(
        "resuming %s from step %d%s%s",
        earlier.folder,
        earlier.step,
        f"; {rows} rows of metrics.csv after it are cut" if rows else "",
        f"; newer checkpoints are moved to checkpoints/{NEWER_DIR}: {', '.join(ahead)}" if ahead else "",
    )


def _archive_newer_checkpoints(folder: Path, step: int) -> list[str]:
    """Move the checkpoints that were saved after a step to a folder of their own; training will make them again."""
    ahead = [path for path in sorted(folder.glob("*.ckpt")) if _step_of(path) > step]
    for path in ahead:
        (folder / NEWER_DIR).mkdir(exist_ok=True)
        for part in (path, manifest_of(path)):
            if part.exists():
                part.replace(folder / NEWER_DIR / part.name)
    return [path.name for path in ahead]


def _step_of(path: Path) -> float:
    """Return the step a checkpoint was saved at; infinity for a file that cannot be read."""
    if manifest_of(path).is_file():
        return manifest_step(path)
    try:
        return int(load(path).get("global_step") or 0)
    except UserError:
        return math.inf


class PromoteStagedConfig(Callback):
    """Makes the config of a start that was refused nowhere the run's own: Hydra wrote it aside.

    Not before all ranks are there: each has compared its config with the run's.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move it."""
        fresh = self.folder / STAGED_CONFIG_DIR
        if trainer.is_global_zero and fresh.is_dir():
            for path in fresh.iterdir():
                path.replace(fresh.parent / path.name)
            fresh.rmdir()
