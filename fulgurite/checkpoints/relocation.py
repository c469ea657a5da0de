"""Keep the best checkpoint of a run whose directory was moved, and drop paths that a loaded state must not contain.

`ModelCheckpoint` saves absolute paths and later deletes these files. It drops its state where its folder has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from fulgurite.checkpoints.state_paths import PATHS, has_scheme, is_below, state_problem
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

States = list[tuple[ModelCheckpoint, dict[str, Any]]]


class RelocateCheckpoints(Callback):
    """Callback that adapts the loaded states of `ModelCheckpoint` callbacks to the folder of the run.

    A state of a run that was moved gets the paths of the new folder. A new run that starts from another run's
    checkpoint keeps that run's best file until it has one. Paths outside these folders are dropped.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adapt the states before Lightning loads them."""
        source = str(trainer.ckpt_path)
        saved = checkpoint.get("callbacks") or {}
        callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
        states = [(each, saved[each.state_key]) for each in callbacks if each.state_key in saved and each.dirpath]
        for callback, state in states:
            if problem := state_problem(state, str(callback.dirpath)):
                raise UserError(f"{source}: its state of ModelCheckpoint {problem}. Pass an unchanged checkpoint.")
        for callback, state in states:
            if has_scheme(str(callback.dirpath)):
                _drop_elsewhere(state, str(callback.dirpath))
        local = [(callback, state) for callback, state in states if not has_scheme(str(callback.dirpath))]
        folder = None if has_scheme(source) else Path(source).resolve().parent
        move = _find_move(local, folder) if folder is not None else None
        for callback, state in local:
            dropped = _adapt(callback, state, folder, move)
            if dropped and trainer.state.fn == "fit":
                paths = "the loaded state of ModelCheckpoint has paths outside %s, which are dropped: %s"
                log.warning(paths, callback.dirpath, ", ".join(dropped))


def _adapt(
    callback: ModelCheckpoint, state: dict[str, Any], folder: Path | None, move: tuple[Path, Path] | None
) -> list[str]:
    """Adapt a state in place, and return the paths that were dropped from it."""
    old, new = _folders(callback, state)
    if old != new and move is not None and _moved(old, *move) == new:
        _rewrite(state, lambda path: str(_moved(Path(path), old, new) or "") if path else "")
        state["dirpath"] = str(callback.dirpath)
    elif old != new:
        kept: dict[str, Any] = {name: state[name] for name in ("best_model_path", "current_score") if name in state}
        state.update({**callback.state_dict(), **kept})
    dropped = list(_drop_outside(state, new.resolve(), folder, callback.FILE_EXTENSION))
    models = state.get("best_k_models") or {}
    if models and state.get("kth_best_model_path") not in models:
        worst = (max if callback.mode == "min" else min)(models, key=models.__getitem__)
        state["kth_best_model_path"], state["kth_value"] = worst, models[worst]
    return dropped


def _find_move(states: States, folder: Path) -> tuple[Path, Path] | None:
    """Return the old and the new path of a moved folder; None if the checkpoint in `folder` is where it was saved."""
    for callback, state in states:
        old, new = _folders(callback, state)
        if old != new and folder.is_relative_to(new.resolve()):
            while old.name == new.name != "":
                old, new = old.parent, new.parent
            return old, new
    return None


def _folders(callback: ModelCheckpoint, state: dict[str, Any]) -> tuple[Path, Path]:
    """Return the folder in which a callback saved, and the one in which it saves now."""
    new = str(callback.dirpath)
    return Path(state.get("dirpath") or new), Path(new)


def _moved(path: Path, old: Path, new: Path) -> Path | None:
    """Return the path below `new` of what was at a path below `old`; None for a path elsewhere."""
    return new / path.relative_to(old) if path.is_relative_to(old) else None


def _rewrite(state: dict[str, Any], rewrite: Callable[[str], str]) -> None:
    """Apply a function to each path of a state; an empty result removes the path."""
    state.update({name: rewrite(state.get(name) or "") for name in PATHS})
    models = {rewrite(path): score for path, score in (state.get("best_k_models") or {}).items()}
    models.pop("", None)
    state["best_k_models"] = models


def _drop_outside(state: dict[str, Any], own: Path, source: Path | None, extension: str) -> Iterable[str]:
    """Remove and return the paths that, with links resolved, are no checkpoints in the callback's own folder.

    The callback deletes the files at its paths, and a folder of shards with its whole content. The best file may also
    be in the folder of the loaded checkpoint: the callback only reads it.
    """
    best = state.get("best_model_path") or ""
    dropped: list[str] = []

    def inside(path: str) -> str:
        if not path or _is_checkpoint(path, own, extension):
            return path
        dropped.append(path)
        return ""

    _rewrite(state, inside)
    if best and source is not None and Path(best).is_file() and _is_checkpoint(best, source, extension):
        state["best_model_path"] = best
        dropped = [path for path in dropped if path != best]
    return dict.fromkeys(dropped)


def _is_checkpoint(path: str, folder: Path, extension: str) -> bool:
    resolved = Path(path).resolve()
    return not has_scheme(path) and folder in resolved.parents and resolved.name.endswith(extension)


def _drop_elsewhere(state: dict[str, Any], address: str) -> None:
    """Remove the paths that are not below the callback's address, except the best file: it is only read."""
    best = state.get("best_model_path") or ""
    _rewrite(state, lambda path: path if is_below(path, address) else "")
    state["best_model_path"] = best if ".." not in Path(best).parts else ""
