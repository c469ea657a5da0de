"""Choose, verify and load the checkpoint to resume from or to test: explicit over best over last."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from fulgurite.checkpoints.manifest import newest_intact, require_intact, suggest_intact
from fulgurite.checkpoints.matching import matching_state
from fulgurite.checkpoints.plain import TYPES, from_plain
from fulgurite.core.download import download
from fulgurite.core.errors import UserError
from fulgurite.core.files import sha256_of
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.trust.checkpoint_bounds import load_bounded

log = RankedLogger(__name__)


def resolve_checkpoint(
    cfg: DictConfig, model: LightningModule, skip: Sequence[str] = (), trainer: Trainer | None = None
) -> str | None:
    """Return the verified local path of the config's checkpoint, or None without `ckpt_path`.

    The checkpoint must fit the model, except its modules and parameters whose names are in `skip`.
    """
    source = cfg.get("ckpt_path")
    if not source:
        return None
    path = _local_file(str(source), cfg.get("ckpt_sha256"), Path(cfg.paths.log_dir) / "downloads")
    named = describe_source(cfg, path)
    matching_state(load(path), model, path, skip, named=named, sharded=is_sharded(trainer), report=True)
    return str(path)


def is_sharded(trainer: Trainer | None) -> bool:
    """Return whether the strategy of a trainer shards models, and so loads checkpoints after `configure_model`."""
    return trainer is not None and trainer.strategy.restore_checkpoint_after_setup


def describe_source(cfg: DictConfig, path: Path) -> str:
    """Return how the user named a checkpoint: `ckpt_path=<file>:`, or `resume=<run>: <file>`; begins a message."""
    for key, argument in (("resume.run", "resume"), ("run", "run")):
        if (run := OmegaConf.select(cfg, key)) and path.is_relative_to(run):
            return f"{argument}={run}: {path.name}"
    return f"ckpt_path={path}:"


def checkpoint_to_test(trainer: Trainer, trained: bool, given: str | None) -> str | None:
    """Return the checkpoint to test; None for the trained weights in memory."""
    if not trained:
        if given is None:
            raise UserError(
                "train=false: without ckpt_path the test would score untrained weights. "
                "Set ckpt_path=<file or https URL>, or test=false."
            )
        return given
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    # monitored first: best over last
    for callback in sorted(checkpoints, key=lambda callback: callback.monitor is None):
        path = callback.best_model_path
        if path and not Path(path).exists() and "://" not in path:
            # a newer one replaced it, then the run resumed from an earlier step
            log.warning("%s: the best checkpoint is missing. The test uses the next best.", path)
            continue
        if path:
            require_intact(Path(path))
            return path
    if not vars(trainer).get("fast_dev_run"):  # which saves nothing
        log.warning("no checkpoint was saved. The test uses the weights of the last step.")
    return None


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint of tensors and plain values; it cannot run code."""
    try:
        checkpoint = load_bounded(
            lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=True), path, f"ckpt_path={path}"
        )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"ckpt_path={path}: contains objects that could run code when loaded. "
            "Save it again with tensors and plain hyperparameters only."
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        size = path.stat().st_size
        raise UserError(
            f"ckpt_path={path}: is not a checkpoint, or is damaged ({size} bytes); {suggest_intact(path)}."
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise UserError(f"ckpt_path={path}: has no state_dict. Pass a checkpoint written by Lightning.")
    try:
        return from_plain(checkpoint)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UserError(f"ckpt_path={path}: its entry {TYPES} does not fit. Pass an unchanged checkpoint.") from error


def _local_file(source: str, sha256: str | None, cache: Path) -> Path:
    if "://" in source:
        target = cache / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.ckpt"
        return download([source], target, sha256=sha256)
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"ckpt_path={source}: no such file. Pass the path of a checkpoint or an https URL.")
    if sha256 and (found := sha256_of(path)) != sha256:
        raise UserError(f"ckpt_path={source}: its sha256 is {found}, not ckpt_sha256={sha256}. Pass the right file.")
    require_intact(path)
    return path


def newest_checkpoint(folder: str | Path) -> str | None:
    """Return the newest intact `last.ckpt` of a folder, and warn about each damaged one.

    Args:
        folder: The checkpoints of a run; it need not exist.

    Returns:
        A path for `ckpt_path` of `Trainer.fit`, or None when there is none.
    """
    path, damaged = newest_intact(Path(folder))
    for line in damaged:
        log.warning("%s; skipped", line)
    return str(path) if path is not None else None
