"""Run the commands of an edit: save a checkpoint, validate, end training after a step or an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch import Trainer

from fulgurite.callbacks.last_checkpoint import LastCheckpoint
from fulgurite.compat.lightning import is_accumulating
from fulgurite.compat.lightning_loaders import validate_after_step
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


class Commands:
    """The commands of one training; files go to `checkpoints` in the run directory."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.folder = trainer, folder
        self._saves = self._stops_after_step = self._stops_after_epoch = False
        self._limits: tuple[int | None, int] | None = None  # maximum of epochs and steps, before a command

    def run(self, names: Iterable[str], *, is_resumed: bool) -> None:
        """Do these after the present step; a resumed run does not stop once more."""
        if "checkpoint" in names:
            self._saves = True
        if "stop_after_step" in names and not is_resumed:
            self._stops_after_step = True
        if "stop_after_epoch" in names and not is_resumed:
            self._stops_after_epoch = True
        if "validate" in names or (self._stops_after_step and self.trainer.enable_validation):
            validate_after_step(self.trainer)

    def after_batch(self) -> None:
        """Save, and end training, once the optimizer has stepped."""
        if self._saves:
            self._save()
        if self._stops_after_step and not is_accumulating(self.trainer):
            self._stop(max_steps=self.trainer.global_step)

    def after_epoch(self) -> None:
        """End training."""
        if self._stops_after_epoch:
            self._stop(max_epochs=self.trainer.current_epoch + 1)

    def end(self) -> None:
        """Put the limits of training back, and report a checkpoint that was not saved."""
        if self._limits is not None:
            self.trainer.fit_loop.max_epochs, self.trainer.fit_loop.epoch_loop.max_steps = self._limits
        if self._saves:
            log.warning("live: checkpoint: training ended first. checkpoints/last.ckpt holds its end.")

    def _stop(self, max_epochs: int | None = None, max_steps: int | None = None) -> None:
        loop = self.trainer.fit_loop
        self._stops_after_step = self._stops_after_epoch = False
        self._limits = self._limits or (loop.max_epochs, loop.max_steps)
        log.info("live: training ends after step %d, epoch %d", self.trainer.global_step, self.trainer.current_epoch)
        if max_epochs is not None:
            loop.max_epochs = max_epochs
        if max_steps is not None:
            loop.epoch_loop.max_steps = max_steps

    def _save(self) -> None:
        trainer = self.trainer
        saver = next((each for each in vars(trainer)["callbacks"] if isinstance(each, LastCheckpoint)), None)
        can_resume = saver.is_resumable(trainer) if saver is not None else not is_accumulating(trainer)
        if not can_resume and not self._stops_after_step:
            return  # at the next step: a run could not resume exactly from here
        self._saves = False
        path = self.folder / "checkpoints" / f"live-{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path, False)  # with the optimizer
        log.info("live: saved %s", path)
