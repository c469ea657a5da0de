"""Add exact resume to a trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback

from fulgurite.core.exactness import note_inexact
from fulgurite.exact_resume.callback import ExactResume
from fulgurite.exact_resume.streams.cursor import StreamResume
from fulgurite.exact_resume.user_state.user_state import let_spike_detection_resume


class KeepRestored(Callback):
    """Keeps what a checkpoint restored, before the callbacks after it change it in `on_train_start`.

    Args:
        exact: The callback that puts it back.
    """

    def __init__(self, exact: ExactResume) -> None:
        self.exact = exact

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy what may change."""
        self.exact.keep_restored(trainer)


def _drop_loader_state(_trainer: Trainer, _model: LightningModule, checkpoint: dict[str, Any]) -> None:
    checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)


def apply_exact_resume(
    trainer: Trainer,
    seed: int | None,
    *,
    enabled: bool,
    resumes: bool,
    stream_resume: StreamResume = "skip",
    save_attributes: bool = True,
) -> None:
    """Make a run resume exactly; `enabled=False` leaves data order and state to Lightning."""
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    let_spike_detection_resume(trainer)
    if enabled:
        # Lightning has sorted its callbacks by now: those that save are last
        exact = ExactResume(seed, stream_resume, save_attributes=save_attributes)
        callbacks.insert(len(callbacks) - len(trainer.checkpoint_callbacks), exact)
        callbacks.insert(0, KeepRestored(exact))
        return
    note_inexact("resilience.exact_resume=false", "Lightning resumes this run. Set it to true.")
    if resumes:
        # an exact run may have saved the checkpoint, and standard loaders cannot load its state
        callbacks.insert(0, LambdaCallback(on_load_checkpoint=_drop_loader_state))
