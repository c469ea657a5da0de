"""Save the newest state of a run, only where a run can resume exactly."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fulgurite.compat.lightning import call_after_batch, is_accumulating, is_last_batch, save_checkpoint
from fulgurite.core.context import setting
from fulgurite.core.errors import UserError
from fulgurite.core.files import make_folder
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

NEVER_SAVED = (
    "%s: a validation follows every optimizer step (trainer.val_check_interval)%s, and no state can be saved right "
    "after one. A run that is killed there resumes from the start of its epoch."
)


class LastCheckpoint(ModelCheckpoint):
    """Keeps one file of the newest state, saved between epochs and every n steps within an epoch.

    An epoch is saved when the next one starts or training ends: by then its metrics are logged, its schedulers have
    stepped and its sums are reset. Within an epoch the file is saved after an optimizer step, when all hooks of its
    batch have run and its values are logged. Saving is deferred to the next possible step where Lightning cannot resume
    exactly: amid gradient accumulation, at the last batch of an epoch, and after a validation. In manual optimization
    it is deferred to a batch in which an optimizer stepped.

    Args:
        dirpath: Folder of the file.
        filename: Name of the file without `.ckpt`.
        every_n_train_steps: Optimizer steps between two saves within an epoch; None saves between epochs only.
        every_n_epochs: Epochs between two saves; the end of training is always saved.

    Raises:
        UserError: An interval is not a whole number above 0.

    Example:
        >>> trainer = Trainer(callbacks=[LastCheckpoint("checkpoints", every_n_train_steps=100)])
    """

    def __init__(
        self,
        dirpath: str | Path,
        filename: str = "last",
        every_n_train_steps: int | None = None,
        every_n_epochs: int = 1,
    ) -> None:
        super().__init__(dirpath, filename, monitor=None, enable_version_counter=False)
        _require_interval("every_n_epochs", every_n_epochs)
        if every_n_train_steps is not None:
            _require_interval("every_n_train_steps", every_n_train_steps)
        self.every_n_train_steps = every_n_train_steps
        self.every_n_epochs_ended = every_n_epochs
        self._file = str(Path(dirpath) / f"{filename}{self.FILE_EXTENSION}")
        self._saved_step = 0
        self.newest: int | None = None  # optimizer steps in the file; None before the first save
        self._between_epochs = False
        self._resumed_between_epochs = False
        self._has_validated = False  # since the batch was trained on
        self._num_steps, self._has_stepped = 0, True  # of manual optimization, in the batch
        self._num_blocked = 0  # steps in a row that a validation kept from being saved
        self._has_warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the folder, so that a wrong one is refused before the training.

        Raises:
            UserError: It cannot be created.
        """
        super().setup(trainer, pl_module, stage)
        folder = str(self.dirpath)
        if stage == "fit" and trainer.is_global_zero and "://" not in folder and not vars(trainer)["fast_dev_run"]:
            make_folder(Path(folder), f"{_argument('dirpath', folder)}:")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep other callbacks from writing the file.

        Raises:
            UserError: Another `ModelCheckpoint` has its file name.
        """
        for other in trainer.checkpoint_callbacks:
            if other is self or not isinstance(other, ModelCheckpoint) or other.dirpath is None:
                continue
            if Path(other.dirpath).resolve() != Path(self._file).parent.resolve():
                continue
            if other.filename == Path(self._file).stem:
                raise UserError(
                    f"{type(other).__name__}: filename={other.filename} is the file of {type(self).__name__}, "
                    f"{self._file}. Set another filename or dirpath."
                )
            if other.save_last and Path(self._file).stem == other.CHECKPOINT_NAME_LAST:
                other.save_last = None
                log.info(
                    "%s: save_last is left to %s, which writes the same %s",
                    *(type(other).__name__, type(self).__name__, Path(self._file).name),
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count steps from here, and start a new epoch when the checkpoint holds a complete one."""
        super().on_train_start(trainer, pl_module)
        self._saved_step = self._num_steps = trainer.global_step
        call_after_batch(trainer, self, partial(self._save_when_due, trainer))
        interval = trainer.val_check_batch if trainer.enable_validation else None
        # a remainder of 0: each batch that ends an accumulation is validated after
        is_never = interval is not None and trainer.accumulate_grad_batches % interval == 0
        if self.every_n_train_steps is not None and is_never and not vars(trainer)["fast_dev_run"]:
            self._warn_never_saved(trainer)
        if self._resumed_between_epochs:
            # with max_steps Lightning 2.6 treats every resumed run as amid an epoch
            trainer.fit_loop.epoch_loop.restarting = False
            self._resumed_between_epochs = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the start of what follows a batch, before its validation."""
        self._has_validated = False
        if not pl_module.automatic_optimization:
            before, self._num_steps = self._num_steps, trainer.global_step
            self._has_stepped = self._num_steps > before

    def _save_when_due(self, trainer: Trainer) -> None:
        every = self.every_n_train_steps
        if every is None or trainer.global_step - self._saved_step < every or vars(trainer)["fast_dev_run"]:
            return
        if self.is_resumable(trainer):
            self._save(trainer)
        elif self._has_validated and self._has_stepped:
            self._num_blocked += 1
            if self._num_blocked == 2:  # of manual optimization: its steps are not known before
                self._warn_never_saved(trainer)

    def _warn_never_saved(self, trainer: Trainer) -> None:
        every = trainer.check_val_every_n_epoch or 1
        epochs = f" in the epochs that validate (trainer.check_val_every_n_epoch={every})" if every > 1 else ""
        if not self._has_warned:
            log.warning(NEVER_SAVED, type(self).__name__, epochs)
        self._has_warned = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the previous epoch, now that it is complete."""
        if trainer.global_step > self._saved_step and trainer.current_epoch % self.every_n_epochs_ended == 0:
            self._save(trainer, between_epochs=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._save(trainer, between_epochs=True)

    def save_here(self, trainer: Trainer, pl_module: LightningModule, *, between_epochs: bool = False) -> bool:
        """Save the current state before a run is stopped, from a callback after this one.

        `between_epochs` means that an epoch is complete; otherwise call it by `call_after_batch`.

        Returns:
            Whether a run can resume exactly from the file; if False, call again at a later step.
        """
        if not between_epochs and not self.is_resumable(trainer):
            return False
        if self.newest != trainer.global_step:
            self._save(trainer, between_epochs=between_epochs)
        return True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: loggers and schedulers still need the epoch."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the validation: the sums of the validation are not logged and reset yet."""
        self._has_validated = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark the epoch as complete in the counters."""
        if self._between_epochs:
            progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
            for counters in progress.values():
                counters.update(dict.fromkeys(counters, counters["completed"]))
            checkpoint["epoch"] = trainer.current_epoch - 1  # the epoch it holds, as in Lightning's own checkpoints

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read whether the epoch is complete."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]
        self._resumed_between_epochs = len(set(progress.values())) == 1

    def _save(self, trainer: Trainer, *, between_epochs: bool = False) -> None:
        if vars(trainer)["fast_dev_run"] or trainer.sanity_checking:
            return
        self._between_epochs = between_epochs
        self.best_model_path = self._file  # no metric: the newest is the best
        try:
            save_checkpoint(self, trainer, self._file)
        finally:
            self._between_epochs = False
        self._saved_step = self.newest = trainer.global_step
        self._num_blocked = 0

    def is_resumable(self, trainer: Trainer) -> bool:
        """Return whether a run can resume exactly after the batch that was just trained on."""
        if is_accumulating(trainer) or is_last_batch(trainer) or trainer.should_stop:
            return False
        # after a validation Lightning 2.6 counts the batch again when it resumes
        return self._has_stepped and not self._has_validated


def _require_interval(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{_argument(name, value)}: is not a whole number above 0. Set 1 or more.")


def _argument(name: str, value: object) -> str:
    return setting(f"callbacks.last_checkpoint.{name}={value}", f"LastCheckpoint({name}={value!r})")
