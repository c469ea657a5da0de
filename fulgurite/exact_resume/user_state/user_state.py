"""Save and restore the state that user code keeps outside of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    SpikeDetection,
    StochasticWeightAveraging,
)
from torch.nn import Module

from fulgurite.compat.modules import ModelParts, model_parts
from fulgurite.compat.optimizer_states import share_again, shared_parts
from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.exact_resume.structure.model_structure import (
    model_structure,
    name_changed_structure,
    run_structure,
    switch_modules,
    switched_modules,
)
from fulgurite.exact_resume.user_state.attributes import Attributes
from fulgurite.exact_resume.user_state.optimizer_layout import (
    Layout,
    align_groups,
    name_replaced_optimizers,
    optimizer_layout,
)
from fulgurite.exact_resume.user_state.restored import TUNERS, Restored, repeat_epoch_start
from fulgurite.exact_resume.user_state.shared_owners import begin_search, end_search
from fulgurite.exact_resume.user_state.trainer_settings import (
    changed_settings,
    read_settings,
    restore_settings,
    set_settings,
)
from fulgurite.exact_resume.values.kinds import unwrapped

log = RankedLogger(__name__)


class UserState:
    """What code of the user changes in a run: attributes, `requires_grad`, modes, and settings of the trainer."""

    def __init__(self, save_attributes: bool = True) -> None:
        self.is_tuning = False  # whether a tuner runs, which loads a checkpoint of its own
        self.attributes = Attributes() if save_attributes else None
        self._loaded: dict[str, Any] = {}
        self._restored = Restored()
        self._start_settings: dict[str, Any] = {}
        self._start_layout: Layout = []
        self._shared_parts: list[tuple[Any, Any, str, Any]] = []  # of optimizers, before they are restored
        self._start_structure: dict[str, str] = {}
        self._start_modules: dict[str, Module] = {}  # by path
        self._settings_at_loaders: dict[str, list[Any]] = {}
        self._kept_settings: dict[str, Any] = {}  # before the hooks of a resumed run

    def begin(self, trainer: Trainer) -> None:
        """Take the settings of the trainer as those of the config."""
        begin_search(trainer)
        self._start_settings = read_settings(trainer)

    def start(self, trainer: Trainer) -> None:
        """Take the present attributes as those of the start; call it again when there are loaders."""
        parts = model_parts(trainer.lightning_module)
        self._start_modules = dict(parts.all_modules)
        self._start_structure = _structure(trainer, parts)  # the last call counts: each start calls the hooks before it
        if self.attributes is not None:
            self.attributes.remember(trainer, parts, is_start=True)

    def end_start(self, trainer: Trainer) -> None:
        """Release what only the start of a run needs."""
        end_search(trainer)

    def before_loaders(self, trainer: Trainer) -> None:
        """Restore the settings that the trainer had when the loaders of the interrupted epoch were made."""
        if (settings := self._loaded.pop("settings_at_loaders", None)) is not None:
            restore_settings(trainer, settings, self._start_settings)
        self._settings_at_loaders = changed_settings(trainer, self._start_settings)

    def state_dict(self, trainer: Trainer, parts: ModelParts, *, thorough: bool = True) -> dict[str, Any]:
        """Return the state of this rank; thorough: read large tensors as a whole, to name their changes."""
        state: dict[str, Any] = {
            "frozen": [name for name, weight in parts.weights if not weight.requires_grad],
            "evaluating": [name for name, module in parts.modules if not module.training],
            "optimizers": optimizer_layout(trainer, parts.weights),
            "settings": changed_settings(trainer, self._start_settings),
            "settings_at_loaders": self._settings_at_loaders,
            "structure": model_structure(parts),
            "switched": switched_modules(self._start_modules, parts),
        }
        structure = state["structure"] | run_structure(trainer)
        name_changed_structure(self._start_structure, structure, state["switched"], is_save=True)
        name_replaced_optimizers(self._start_layout, state["optimizers"])
        if self.attributes is not None:
            state["objects"] = self.attributes.state_dict(trainer, parts=parts, thorough=thorough)
        return state

    def load_state_dict(self, trainer: Trainer, state: dict[str, Any], weights: Iterable[str] | None) -> None:
        """Keep a state until the loaders and the first batch are made, and the weights just loaded.

        `weights` are the names in the checkpoint, or None where each rank loads its own shards.
        """
        if state.get("attributes"):
            name_inexact(
                "attributes",
                "this checkpoint is of an earlier version, whose attributes cannot be read. The first checkpoint of "
                "this run has them.",
            )
        self._loaded = dict(state)
        self._restored.keep_weights(trainer, weights)

    def align_optimizers(self, trainer: Trainer) -> None:
        """Give the optimizers the parameter groups that they had at the save, before Lightning restores them."""
        self._start_layout = optimizer_layout(trainer, trainer.lightning_module.named_parameters())
        align_groups(trainer, self._loaded.get("optimizers", []))
        self._shared_parts = shared_parts(trainer)

    def keep_restored(self, trainer: Trainer) -> None:
        """Keep the restored optimizers, schedulers and settings until `restore`, once, before hooks change them."""
        if self._loaded and not self._kept_settings:
            share_again(self._shared_parts)
            self._restored.keep_optimizers(trainer)
            self._kept_settings = read_settings(trainer)

    def restore(self, trainer: Trainer, *, amid_epoch: bool) -> None:
        """Restore the loaded state over what hooks of this start changed."""
        state, self._loaded = self._loaded, {}
        if state and self.attributes is not None:  # code that hooks of the start brought into use is saved too
            self.attributes.remember(trainer, is_start=True)
        self.end_start(trainer)
        if amid_epoch:
            repeat_epoch_start(trainer)
            parts = model_parts(trainer.lightning_module)
            self._start_structure, self._start_modules = _structure(trainer, parts), dict(parts.all_modules)
        if not state:
            return
        self._restored.put_back(trainer)
        kept, self._kept_settings = self._kept_settings, {}
        set_settings(trainer, kept)
        restore_settings(trainer, state.get("settings", {}), self._start_settings)
        switched = state.get("switched", {})
        switch_modules(trainer.lightning_module, self._start_modules, switched)
        _restore_modes(trainer.lightning_module, state)
        structure = model_structure(model_parts(trainer.lightning_module))
        name_changed_structure(structure, state.get("structure", {}), switched)
        if self.attributes is not None:
            self.attributes.load_state_dict(trainer, state.get("objects", {}))


def _structure(trainer: Trainer, parts: ModelParts) -> dict[str, str]:
    return model_structure(parts) | run_structure(trainer)


def _restore_modes(model: LightningModule, state: dict[str, Any]) -> None:
    """Restore which weights are frozen, and which modules are in evaluation mode."""
    frozen, evaluating = set(state["frozen"]), set(state.get("evaluating", ()))
    for name, weight in model.named_parameters():
        if weight.requires_grad == (name in frozen):
            weight.requires_grad_(name not in frozen)
    for name, module in model.named_modules():
        module.training = name not in evaluating


def remember_before_tuners(trainer: Trainer, user_state: UserState) -> None:
    """Take the attributes before a tuner changes them, so that its result is saved as a change."""
    for tuner in _tuners(trainer):
        _replace_start(tuner, partial(_start_and_tune, user_state, unwrapped(tuner.on_fit_start)))


def _start_and_tune(user_state: UserState, tune: Callable[..., None], trainer: Trainer, *args: Any) -> None:
    user_state.start(trainer)
    user_state.is_tuning = True
    try:
        tune(trainer, *args)
    finally:
        user_state.is_tuning = False


def _replace_start(tuner: Callback, function: Callable[..., None]) -> None:
    """Call a function in place of the hook of a tuner that searches."""

    @wraps(unwrapped(tuner.on_fit_start))  # so that it is not taken for an attribute of the user
    def on_fit_start(*args: Any) -> None:
        function(*args)

    vars(tuner)["on_fit_start"] = on_fit_start


def skip_tuners(trainer: Trainer) -> None:
    """Keep the callbacks that search a learning rate or a batch size from starting over in a resumed run."""
    for tuner in _tuners(trainer):
        log.info("%s does not run again: its result is part of the checkpoint.", type(tuner).__name__)
        _replace_start(tuner, _do_nothing)


def _tuners(trainer: Trainer) -> list[Callback]:
    return [callback for callback in vars(trainer)["callbacks"] if isinstance(callback, TUNERS)]


def let_spike_detection_resume(trainer: Trainer) -> None:
    """Give SpikeDetection the attribute into which Lightning 2.6 loads its state: a resume raised an error."""
    for callback in vars(trainer)["callbacks"]:
        if isinstance(callback, SpikeDetection):
            vars(callback).setdefault("running", callback.running_mean)


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
}


def _do_nothing(*args: Any) -> None:
    pass
