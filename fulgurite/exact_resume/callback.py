"""Resume a run bit-identically: loaders, RNG states, metrics and Lightning's own bookkeeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from fulgurite.compat.buffers import CHANGED_BUFFERS, Shapes, buffer_shapes, load_changed_buffers
from fulgurite.compat.lightning import defer_first_fetch, end_restart, find_saver
from fulgurite.compat.lightning_results import restore_logged_results
from fulgurite.compat.modules import model_parts
from fulgurite.compat.optimizer_states import keep_types_of_states
from fulgurite.core.context import setting
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.exact_resume.data_loaders import DataLoaders
from fulgurite.exact_resume.monitors import monitor_states, restore_monitor_states
from fulgurite.exact_resume.objects.encoding import KEPT
from fulgurite.exact_resume.objects.gradients import kept_gradients, restore_gradients
from fulgurite.exact_resume.order.rng import restore_rng_states, rng_states
from fulgurite.exact_resume.process.numerics import describe_changes, numerics_settings
from fulgurite.exact_resume.streams.cursor import StreamResume
from fulgurite.exact_resume.streams.following import load_stream_states, stream_states
from fulgurite.exact_resume.structure.model_structure import evaluate_scripts_without_inference_mode
from fulgurite.exact_resume.user_state.metrics import (
    epoch_results,
    logged_values,
    metric_states,
    restore_logged_values,
    restore_metric_states,
)
from fulgurite.exact_resume.user_state.restored import count_skipped_batch
from fulgurite.exact_resume.user_state.user_state import (
    UserState,
    name_unproven,
    remember_before_tuners,
    skip_tuners,
)
from fulgurite.exact_resume.workers.worker_copies import name_worker_changes, name_worker_copies
from fulgurite.trust.checkpoint_bounds import without_foreign_places

log = RankedLogger(__name__)

# positions in the training loop where a checkpoint can hold all that a resumed run needs
RESUMABLE_POINTS = ("epoch start", "step", "end")
T = TypeVar("T")


class ExactResume(Callback):
    """Saves and restores what Lightning does not: data order, RNG states, metrics and means amid an epoch.

    Lightning sorts it before the callbacks that save; place it after all others. It restores after every
    `on_train_start`, where models often reset their metrics, and before the first batch.

    Args:
        seed: Seed of data order and augmentation; None draws one.
        stream_resume: Where a stream without a state resumes: `skip` reads past the batches trained on, `restart`
            starts over.
        save_attributes: Save plain attributes of model, data module, data sets and callbacks that changed.

    Example:
        >>> trainer = Trainer(callbacks=[ExactResume(seed=1), LastCheckpoint("checkpoints", every_n_train_steps=100)])
        >>> trainer.fit(model, datamodule=datamodule, ckpt_path="checkpoints/last.ckpt", weights_only=True)
    """

    def __init__(self, seed: int | None, stream_resume: StreamResume = "skip", *, save_attributes: bool = True) -> None:
        self.seed = seed if seed is not None else torch.seed() % 2**32
        self._position = ""
        self._stream_states: list[Any] = []  # by rank
        self._state: dict[str, Any] | None = None
        self._saved_settings: dict[str, Any] = {}  # numerics settings in the checkpoint that is loaded
        self._buffers: Shapes = {}  # of the model as built
        self._changed_buffers: set[str] = set()  # in the checkpoint that is loaded
        self._weights: list[str] | None = None  # names in the checkpoint that is loaded
        self._trainer: Trainer | None = None
        self._user_state = UserState(save_attributes)
        self._loaders = DataLoaders(self.seed, stream_resume, self._user_state, self.restore)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree on a seed and wrap the data module, in the process that trains: it may be a spawned one."""
        load_changed_buffers(trainer)
        if stage != "fit":
            return
        self._trainer, self._loaders.is_started = trainer, False
        keep_types_of_states(trainer)
        evaluate_scripts_without_inference_mode(trainer)
        self._buffers = buffer_shapes(pl_module)
        name_unproven(trainer)
        if trainer.checkpoint_callbacks and find_saver(trainer) is None and not vars(trainer)["fast_dev_run"]:
            name = setting("callbacks.last_checkpoint", "LastCheckpoint")
            log.warning("the checkpoints of this run may not resume exactly: it has no %s. Add one.", name)
        self._user_state.begin(trainer)
        remember_before_tuners(trainer, self._user_state)
        defer_first_fetch(trainer)
        self.seed = int(trainer.strategy.broadcast(self.seed))
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            self._loaders.seed = self.seed
            self._loaders.wrap(datamodule)
        else:
            log.warning("exact resume does not control the data order without a data module. Pass datamodule= to fit.")

    # state

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints, independent of the class's name."""
        return "ExactResume"

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and, at a resumable point, the state of every rank: a collective call."""
        trainer = self._trainer
        common: dict[str, Any] = {"seed": self.seed, "attributes": self._user_state.attributes is not None}
        if trainer is None:
            return common
        streams = stream_states(trainer)
        common |= {"streams": _gather_states(streams, trainer)} if streams else {}
        if self._position not in RESUMABLE_POINTS:
            return common
        name_worker_changes(trainer)
        parts = model_parts(trainer.lightning_module)  # all of them from one walk, which each of these would do
        own = {
            "generators": rng_states(),
            "lending": self._loaders.rng.state_dict(),
            "metrics": metric_states(parts.modules),
            "results": epoch_results(trainer) if self._position == "step" else [],
            "logged": logged_values(trainer),
            # an early-stopped run stays stopped until its limits are raised
            "ended": _training_limits(trainer) if self._position == "end" and trainer.should_stop else None,
            "user": self._user_state.state_dict(trainer, parts, thorough=self._position != "step"),
            "loaders": self._loaders.states.state_dict(trainer),
            "monitors": monitor_states(trainer),
        }
        common |= {"gradients": gradients} if (gradients := kept_gradients(trainer, parts.weights)) else {}
        return {**common, "switches": numerics_settings(trainer), "ranks": _gather_states(own, trainer)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """List the buffers that have another shape than at the start."""
        start, changed = self._buffers, self._changed_buffers
        shapes = buffer_shapes(pl_module).items()
        if names := [name for name, shape in shapes if name in changed or start.get(name, shape) != shape]:
            checkpoint[CHANGED_BUFFERS] = names

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Skip tuners, and restore `ModelCheckpoint.current_score`, which Lightning saves but does not load."""
        if self._is_resuming(trainer):
            skip_tuners(trainer)
            self._changed_buffers = set(checkpoint.get(CHANGED_BUFFERS, ()))
            is_whole = not trainer.strategy.restore_checkpoint_after_setup and "state_dict" in checkpoint
            self._weights = list(checkpoint["state_dict"]) if is_whole else None
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key) or {}
            if trainer.state.fn == "fit" and isinstance(callback, ModelCheckpoint) and "current_score" in state:
                callback.current_score = state["current_score"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for `restore`, which warns of changed numerics settings."""
        trainer = self._trainer
        if trainer is None or not self._is_resuming(trainer):
            return
        self.seed = self._loaders.seed = state_dict["seed"]
        self._stream_states = state_dict.get("streams", [])
        trainer.num_sanity_val_steps = 0  # the interrupted run did its sanity check
        ranks = state_dict.get("ranks")
        if ranks is None:
            log.warning("this checkpoint cannot be resumed exactly. %s.", _find_exact_file(trainer))
            return
        self._saved_settings = state_dict["switches"]
        own = ranks[trainer.global_rank if len(ranks) == trainer.world_size else 0]
        own = without_foreign_places(trainer, own, KEPT)
        self._state = {**own, "gradients": state_dict.get("gradients", {})}
        if len(ranks) != trainer.world_size:  # the same state on all ranks would make them draw the same numbers
            self._state = {key: value for key, value in self._state.items() if key not in ("generators", "monitors")}
        self._user_state.load_state_dict(trainer, self._state.get("user", {}), self._weights)
        attributes = self._state.get("user", {}).get("objects", {})
        self._loaders.states.load_state_dict(self._state.get("loaders", {}), attributes)

    def _is_resuming(self, trainer: Trainer) -> bool:
        """Return whether a checkpoint is loaded to train on, and not one of a tuner to go back to its start."""
        return trainer.state.fn == "fit" and not (self._user_state.is_tuning or self._loaders.is_started)

    def restore(self) -> None:
        """Restore the loaded state, once."""
        state, self._state = self._state, None
        if self._stream_states and self._trainer is not None:
            ranks, self._stream_states = self._stream_states, []
            load_stream_states(self._trainer, ranks)
        if state is None or self._trainer is None:
            return
        amid_epoch = self._trainer.fit_loop.restarted_mid_epoch
        self._user_state.restore(self._trainer, amid_epoch=amid_epoch)
        for line in describe_changes(self._saved_settings, numerics_settings(self._trainer)):
            log.warning("exact resume: %s", line)
        restore_metric_states(self._trainer.lightning_module, state["metrics"])
        restore_gradients(self._trainer.lightning_module, state["gradients"])
        if amid_epoch:
            restore_logged_results(self._trainer, state["results"])
        restore_logged_values(self._trainer, state["logged"])
        self._loaders.rng.load_state_dict(state["lending"])
        restore_monitor_states(self._trainer, state.get("monitors", []))
        if "generators" in state:
            restore_rng_states(state["generators"])

    # hooks

    def keep_restored(self, trainer: Trainer) -> None:
        """Keep what Lightning restored until the first batch, once."""
        self._user_state.keep_restored(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the attributes of the data sets, before hooks of the model change them."""
        self._position = ""  # the sanity check is over
        self._user_state.start(trainer)
        name_worker_copies(trainer)
        self.keep_restored(trainer)
        if self._state is not None:
            self._loaders.states.start(trainer)
        self._loaders.is_started = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the attributes, and keep an early-stopped run stopped unless its limits were raised."""
        self._user_state.start(trainer)
        self._user_state.align_optimizers(trainer)
        if self._state is not None and self._state.get("ended") == _training_limits(trainer):
            limit = trainer.max_epochs
            log.info("the run had stopped early, before trainer.max_epochs=%s. Raise it to continue.", limit)
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore a run that resumes at the start of an epoch; note the objects that the hooks of a start made."""
        self.restore()
        if not self._position:
            self._user_state.start(trainer)
            self._user_state.end_start(trainer)
        self._position = "epoch start"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore a run that resumes amid an epoch, unless its loader did so."""
        self.restore()
        self._position = "batch"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mark the batch as complete."""
        self._position = "step"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark metrics as in use."""
        self._position = "validation"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make Lightning step ReduceLROnPlateau, which it skips in the first epoch after a resume."""
        self.restore()
        self._position = "epoch end"
        name_worker_changes(trainer)
        end_restart(trainer)
        count_skipped_batch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the last epoch as complete."""
        self._position = "end"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore a run that was saved at its end: its metrics are still needed."""
        self.restore()


def _find_exact_file(trainer: Trainer) -> str:
    saver = find_saver(trainer)
    file = Path(saver.dirpath) / f"{saver.filename}{saver.FILE_EXTENSION}" if saver is not None else None
    if file is not None and file.is_file():
        return f"{file} can"
    return f"The file of {setting('callbacks.last_checkpoint', 'LastCheckpoint')} always can"


def _gather_states(own: T, trainer: Trainer) -> list[T]:
    """Return the states of all ranks, by rank; a collective call."""
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, move_data_to_device(own, torch.device("cpu")))
    return gathered


def _training_limits(trainer: Trainer) -> list[int | None]:
    return [trainer.max_epochs, trainer.max_steps]
