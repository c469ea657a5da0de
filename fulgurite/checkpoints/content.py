"""Keep objects out of checkpoints, so that each one can be loaded again, and report what is left out."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.left_out import LeftOutWeights
from fulgurite.checkpoints.plain import from_plain, plain_hyperparameters, to_plain
from fulgurite.compat.lightning import dump_checkpoint
from fulgurite.core.errors import UserError
from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.trust.checkpoint_bounds import load_bounded
from fulgurite.trust.ownership import require_own

log = RankedLogger(__name__)

MAX_SHOWN = 3  # keys in an error
REMEDY = "Save numbers, text, tensors, arrays, or lists and dicts of these instead"


class PlainCheckpoints(Callback):
    """Callback that makes a trainer save numbers, text, tensors, arrays, lists and dicts only.

    Other values are converted, and converted back at a load. A value without such a form stops a new run: before its
    first step, where the callback makes a checkpoint in memory, else at the first save. The callback also loads the
    first file that is written. Later such values are left out with a warning, and training continues.
    """

    def __init__(self) -> None:
        self._is_accepted = False
        self._is_read_back = False
        self._left_out = LeftOutWeights()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the conversion between the trainer and its strategy."""
        strategy = trainer.strategy
        if "save_checkpoint" not in vars(strategy):
            self._install(strategy)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the hyperparameters that checkpoints leave out."""
        self._is_accepted = self._is_accepted or trainer.ckpt_path is not None  # the interrupted run was checked
        if _saves(trainer):
            for owner in (pl_module, vars(trainer).get("datamodule")):
                if owner is not None:
                    _log_left_out(owner)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check a checkpoint of the start of a new run, where making one in memory takes no copy."""
        if (
            self._is_accepted
            or not _is_whole(trainer.strategy)
            or not trainer.checkpoint_callbacks
            or vars(trainer)["fast_dev_run"]
        ):
            return
        try:
            checkpoint = dump_checkpoint(trainer)
        except Exception as error:  # noqa: BLE001 - a hook of the user that needs a trained step: the first save decides
            log.debug("no checkpoint can be made before the first step: %s", error)
            return
        self._plain(checkpoint, trainer.strategy)

    def _install(self, strategy: Strategy) -> None:
        save, load = strategy.save_checkpoint, strategy.load_checkpoint

        def save_plain(checkpoint: dict[str, Any], filepath: str | Path, *args: Any, **kwargs: Any) -> None:
            save(self._plain(checkpoint, strategy), filepath, *args, **kwargs)
            if not self._is_read_back:
                self._is_read_back = True
                _read_back(strategy, Path(filepath))

        def load_plain(path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
            file = Path(path)
            if file.is_dir():
                require_own(file)  # torch unpickles the index of a folder of shards
            if not file.is_file():  # remote, or shards
                return from_plain(load(path, *args, **kwargs))
            return from_plain(load_bounded(lambda: load(path, *args, **kwargs), file, str(path)))

        strategy.save_checkpoint = save_plain  # type: ignore[method-assign]
        strategy.load_checkpoint = load_plain  # type: ignore[method-assign, assignment]

    def _plain(self, checkpoint: dict[str, Any], strategy: Strategy) -> dict[str, Any]:
        """Return a checkpoint without objects.

        Raises:
            UserError: It is the first one of a run and could not be loaded again.
        """
        if strategy.lightning_module is not None and _is_whole(strategy):
            is_first = not self._is_accepted
            self._left_out.check(strategy.lightning_module, checkpoint["state_dict"], is_first=is_first)
            self._left_out.check_values(strategy, checkpoint)
        plain = to_plain(checkpoint)
        if plain.rejected and not self._is_accepted:
            raise UserError(_refusal(plain.rejected))
        self._is_accepted = True
        for key, kind in plain.rejected.items():
            reason = f"a value of type {kind} is left out, since it could not be loaded again. {REMEDY}."
            name_inexact(f"checkpoint key {key}", reason)
        return plain.content


def _saves(trainer: Trainer) -> bool:
    return bool(trainer.checkpoint_callbacks) and not vars(trainer)["fast_dev_run"]


def _is_whole(strategy: Strategy) -> bool:
    """Return whether each rank holds the whole model, so that making a checkpoint takes no copy."""
    return isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))


def _read_back(strategy: Strategy, path: Path) -> None:
    """Check that the first checkpoint of a process can be loaded; its tensors stay on the disk."""
    if isinstance(strategy.checkpoint_io, AsyncVerifiedCheckpointIO):
        strategy.checkpoint_io.finish()
    if not strategy.is_global_zero or not path.is_file():  # a folder of shards, a remote file
        return
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: this checkpoint cannot be loaded again ({reason}). {REMEDY}.") from error


def _refusal(rejected: dict[str, str]) -> str:
    shown = [f"{key} ({kind})" for key, kind in list(rejected.items())[:MAX_SHOWN]]
    more = f" and {len(rejected) - MAX_SHOWN} more" if len(rejected) > MAX_SHOWN else ""
    return (
        f"checkpoint: it could not be loaded again with these objects: {', '.join(shown)}{more}. "
        f"{REMEDY}, in on_save_checkpoint or state_dict of the class that saves them."
    )


def _log_left_out(owner: LightningModule | LightningDataModule) -> None:
    _, left_out = plain_hyperparameters(owner.hparams)
    if not left_out:
        return
    shown = ", ".join(f"{name} ({kind})" for name, kind in left_out.items())
    # ignore=[<name>] removes self.hparams.<name> too: only what the owner also keeps as self.<name> can spare it
    ignored = ", ".join(f'"{name}"' for name in left_out if getattr(owner, name, None) is owner.hparams[name])
    remedy = f" Write self.save_hyperparameters(ignore=[{ignored}])." if ignored else ""
    log.log(
        logging.WARNING if ignored else logging.INFO,
        "%s: checkpoints leave out the hyperparameters %s, which are objects; load_from_checkpoint needs them as "
        "arguments.%s",
        type(owner).__name__,
        shown,
        remedy,
    )
