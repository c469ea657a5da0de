"""Save and restore the state that user code keeps outside of weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder, StochasticWeightAveraging

from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.exact_resume.user_state.attributes import Attributes
from fulgurite.exact_resume.user_state.epoch_start import repeat_epoch_start
from fulgurite.exact_resume.user_state.worker_copies import name_worker_copies

log = RankedLogger(__name__)


class UserState:
    """Attributes, `requires_grad` and learning rates of a run.

    Args:
        save_attributes: Whether attributes are saved.
    """

    def __init__(self, save_attributes: bool = True) -> None:
        self._attributes = Attributes() if save_attributes else None
        self._at_loaders: dict[str, Any] = {}  # attributes when the training loaders were made
        self._loaded: dict[str, Any] = {}
        self._groups: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def start(self, trainer: Trainer) -> None:
        """Take the present attributes as those of the start; call it again when there are loaders."""
        if self._attributes is not None:
            self._attributes.remember(trainer)
        name_worker_copies(trainer)

    def before_loaders(self, trainer: Trainer) -> None:
        """Restore the attributes that the data module had when it made the loaders of the interrupted epoch."""
        if self._attributes is None:
            return
        if saved := self._loaded.pop("at_loaders", {}):
            self._attributes.load_state_dict(trainer, saved)
        self._at_loaders = self._attributes.state_dict(trainer, ("data", "model hparams"), names=False)

    def state_dict(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state of this rank."""
        frozen = [name for name, weight in trainer.lightning_module.named_parameters() if not weight.requires_grad]
        state: dict[str, Any] = {"frozen": frozen, "at_loaders": self._at_loaders}
        if self._attributes is not None:
            state["attributes"] = self._attributes.state_dict(trainer)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a state until the loaders and the first batch are made."""
        self._loaded = dict(state)

    def keep_optimizers(self, trainer: Trainer) -> None:
        """Keep the restored learning rates of a resumed run until `restore`."""
        self._groups = [(group, _settings(group)) for opt in trainer.optimizers for group in opt.param_groups]

    def restore(self, trainer: Trainer, *, amid_epoch: bool) -> list[str]:
        """Restore the loaded state over what hooks of this start changed.

        Returns:
            The keys that `on_train_epoch_start` logged.
        """
        state, self._loaded = self._loaded, {}
        logged = repeat_epoch_start(trainer) if amid_epoch else []
        if not state:
            return logged
        frozen = set(state["frozen"])
        for name, weight in trainer.lightning_module.named_parameters():
            if weight.requires_grad == (name in frozen):
                weight.requires_grad_(name not in frozen)
        for group, kept in self._groups:
            group.update(kept)
        if self._attributes is not None:
            self._attributes.load_state_dict(trainer, state.get("attributes", {}))
        return logged


def remember_before_tuners(trainer: Trainer, user_state: UserState) -> None:
    """Take the attributes before a tuner changes them, so that its result is saved as a change."""
    for tuner in _tuners(trainer):
        vars(tuner)["on_fit_start"] = partial(_start_and_tune, user_state, tuner.on_fit_start)


def _start_and_tune(user_state: UserState, tune: Callable[..., None], trainer: Trainer, *args: Any) -> None:
    user_state.start(trainer)
    tune(trainer, *args)


def skip_tuners(trainer: Trainer) -> None:
    """Keep the callbacks that search a learning rate or a batch size from starting over in a resumed run."""
    for tuner in _tuners(trainer):
        log.info("%s does not run again: its result is part of the checkpoint.", type(tuner).__name__)
        vars(tuner)["on_fit_start"] = _do_nothing


def _tuners(trainer: Trainer) -> list[Callback]:
    kinds = (LearningRateFinder, BatchSizeFinder)
    return [callback for callback in vars(trainer)["callbacks"] if isinstance(callback, kinds)]


def name_unproven(trainer: Trainer) -> None:
    """Name the callbacks of a run that change training in a way that no checkpoint holds."""
    for callback in vars(trainer)["callbacks"]:
        for kind in type(callback).__mro__:
            if kind is StochasticWeightAveraging and not kind.pl_module_contains_batch_norm(trainer.lightning_module):
                continue
            if kind.__module__.startswith("lightning.") and (reason := UNPROVEN.get(kind.__name__)):
                name_inexact(f"callbacks: {kind.__name__}", reason)


UNPROVEN = {
    "ModelPruning": "checkpoints hold the pruned weights without their masks, so a resumed run trains pruned weights "
    "again until the next pruning. Let it finish without a stop.",
    "StochasticWeightAveraging": "it adds an epoch for the model's batch norm, whose resume is not proven. Use "
    "EMAWeightAveraging, which resumes exactly.",
    "SpikeDetection": "Lightning saves none of its running means. Let it finish without a stop.",
}


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _do_nothing(*args: Any) -> None:
    pass
