"""Which weights: to go on from, and to score. Explicit over best over last; untrained weights are never scored."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from fulgurite.checkpoints.manifest import newest_intact, require_intact, suggest_intact
from fulgurite.core.download import download
from fulgurite.core.errors import UserError
from fulgurite.core.files import sha256_of
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

SHOWN = 3  # differing parameters that an error names; a wrong net differs in all of them


def resolve_checkpoint(cfg: DictConfig, model: LightningModule) -> str | None:
    """Return the local path of the checkpoint that the config names, after a look inside; None when it names none.

    Args:
        cfg: A composed config; `ckpt_path` is a file or an https URL, `ckpt_sha256` its digest or null.
        model: The model that is to take the weights.

    Raises:
        UserError: The file is missing, damaged, of another digest, or of another model.
    """
    source = cfg.get("ckpt_path")
    if not source:
        return None
    path = _local(str(source), cfg.get("ckpt_sha256"), Path(cfg.paths.log_dir) / "downloads")
    _require_fit(load(path), model, path)
    return str(path)


def checkpoint_to_test(trainer: Trainer, trained: bool, given: str | None) -> str | None:
    """Return the checkpoint whose weights the test scores; None means the trained weights in memory.

    Args:
        trainer: The trainer, after fit where there was one.
        trained: Whether this run has trained the model.
        given: What `resolve_checkpoint` returned; used only when nothing was trained.

    Raises:
        UserError: Nothing was trained and no checkpoint was given, or the best one was damaged since it was saved.
    """
    if not trained:
        if given is None:
            raise UserError(
                "train=false without ckpt_path: the weights would be untrained and the result meaningless; "
                "add ckpt_path=<file or https URL> or test=false"
            )
        return given
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    # monitored first: best over last
    for callback in sorted(checkpoints, key=lambda callback: callback.monitor is None):
        path = callback.best_model_path
        if path and not Path(path).exists() and "://" not in path:
            # a later one took its place, and the run went on from before that with other settings
            log.warning("%s: the best checkpoint is gone, the test scores the next best that is known", path)
            continue
        if path:
            require_intact(Path(path))
            return path
    log.warning("no checkpoint was saved: the test scores the weights of the last step")
    return None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and primitives; nothing in it can run code.

    Args:
        path: A file that Lightning or `torch.save` wrote.

    Raises:
        UserError: The file is damaged, holds other objects than tensors and primitives, or has no `state_dict`.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"ckpt_path={path}: holds objects that are not tensors or plain values, which could run code when loaded; "
            "save it again with weights and plain hyperparameters only"
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        size = path.stat().st_size
        raise UserError(
            f"ckpt_path={path}: is no checkpoint or is damaged ({size} bytes); {suggest_intact(path)}"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise UserError(f"ckpt_path={path}: has no state_dict; give a checkpoint that Lightning wrote")
    return checkpoint


def _local(source: str, sha256: str | None, cache: Path) -> Path:
    if "://" in source:
        target = cache / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.ckpt"
        return download([source], target, sha256=sha256)
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(f"ckpt_path={source}: there is no such file; give a checkpoint's path or an https URL")
    if sha256 and (found := sha256_of(path)) != sha256:
        raise UserError(f"ckpt_path={source}: its sha256 is {found}, ckpt_sha256 says {sha256}; take the right file")
    require_intact(path)
    return path


def _require_fit(checkpoint: Mapping[str, Any], model: LightningModule, path: Path) -> None:
    """Refuse a checkpoint whose parameters are not those of the model, by name and shape."""
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items() if hasattr(value, "shape")}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    differing = [name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name)]
    if not differing:
        return
    shown = [
        f"{name} is {theirs.get(name, 'missing')} there, {ours.get(name, 'missing')} here"
        for name in dict.fromkeys(differing[:SHOWN])
    ]
    raise UserError(
        f"ckpt_path={path}: was saved from another net ({'; '.join(shown)}; {len(set(differing))} in all); "
        "give the model's config of that run, e.g. experiment=<its experiment>"
    )


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
