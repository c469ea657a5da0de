"""Callbacks that replace the optimizer and scheduler settings that a checkpoint restores."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.optim import Optimizer

from fulgurite.checkpoints.matching import is_below
from fulgurite.compat.optimizer_states import RESET, load_optimizer_state
from fulgurite.core.errors import UserError

# Keys of a parameter group that are not settings of the optimizer: its parameters, and what schedulers add.
NOT_SETTINGS = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


class OverrideRestoredSettings(Callback):
    """Callback that resumes with some settings, or the whole state, of optimizers and schedulers as built.

    Lightning restores both between `on_fit_start` and `on_train_start`.

    Args:
        reset: `optimizer` or `scheduler`, whose state is reset.
        apply: Dotted config keys whose values replace those of the checkpoint, e.g. `model.optimizer.lr`.
    """

    def __init__(self, reset: Sequence[str], apply: Sequence[str]) -> None:
        self.reset = set(reset)
        self.apply = [key.rpartition(".")[2] for key in apply]
        self._optimizers: list[dict[str, Any]] = []
        self._positions: list[dict[int, int]] = []  # by optimizer, of the weights as built, by id
        self._schedulers: list[dict[str, Any]] = []
        self._patience: list[int] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy `patience` before Lightning restores it."""
        vars(trainer)[RESET] = sorted(self.reset)
        self._patience = [callback.patience for callback in _early_stopping(trainer)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the states as built."""
        self._optimizers = [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers]
        self._positions = [
            {id(weight): position for position, weight in enumerate(_weights(optimizer))}
            for optimizer in trainer.optimizers
        ]
        self._schedulers = [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the restored values by the copies."""
        for optimizer, built, positions in zip(trainer.optimizers, self._optimizers, self._positions, strict=True):
            if "optimizer" in self.reset:
                _reset(optimizer, built, positions)
            # a hook of the interrupted run may have added groups, of which the config says nothing
            for group, built_group in zip(optimizer.param_groups, built.get("param_groups", ()), strict=False):
                group.update(self._select(built_group, "initial_lr"))
        for config, built in zip(trainer.lr_scheduler_configs, self._schedulers, strict=True):
            if "scheduler" in self.reset:
                config.scheduler.load_state_dict(built)
            else:
                selected = self._select(built, "base_lrs")
                if "base_lrs" in selected:
                    selected["base_lrs"] = [*selected["base_lrs"], *config.scheduler.base_lrs[len(built["base_lrs"]) :]]
                vars(config.scheduler).update(selected)
        if "patience" in self.apply:
            for callback, patience in zip(_early_stopping(trainer), self._patience, strict=True):
                callback.patience = patience

    def _select(self, built: Mapping[str, Any], with_lr: str) -> dict[str, Any]:
        """Return the values to apply; with the learning rate also `with_lr`, which schedulers derive it from."""
        names = [*self.apply, with_lr] if "lr" in self.apply else self.apply
        return {name: built[name] for name in names if name in built}


class LoadOptimizerState(Callback):
    """Callback that loads the optimizer states of a checkpoint; the settings stay those of the config.

    The state of the modules and parameters in `skip` is not loaded. Messages name `source`, the checkpoint.
    """

    def __init__(self, states: Sequence[Mapping[str, Any]], source: str, skip: Sequence[str] = ()) -> None:
        self.states = states
        self.source = source
        self.skip = skip

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the states.

        Raises:
            UserError: They belong to other optimizers.
        """
        remedy = "Load only the weights with resume.mode=weights."
        if len(self.states) != len(trainer.optimizers):
            raise UserError(
                f"resume.mode=hotstart: {self.source} holds the state of {len(self.states)} optimizers, "
                f"this run has {len(trainer.optimizers)}. {remedy}"
            )
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        for optimizer, state in zip(trainer.optimizers, self.states, strict=True):
            settings = optimizer.state_dict()["param_groups"]
            sizes = [[len(group["params"]) for group in groups] for groups in (settings, state["param_groups"])]
            if sizes[0] != sizes[1]:  # states are kept by position
                raise UserError(
                    f"resume.mode=hotstart: {self.source} holds an optimizer state for {sum(sizes[1])} parameters, "
                    f"this run's optimizer has {sum(sizes[0])}. {remedy}"
                )
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            kept = {
                position: values
                for position, values in state["state"].items()
                if not is_below(names.get(id(parameters[position]), ""), self.skip)
            }
            try:
                # the checkpoint's own param_groups would restore its learning rate
                load_optimizer_state(optimizer, {"state": kept, "param_groups": settings})
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"resume.mode=hotstart: the optimizer state in {self.source} does not fit ({error}). {remedy}"
                ) from error


class RequireSameOptimizer(Callback):
    """Callback that rejects a checkpoint of another optimizer before Lightning restores its state."""

    def __init__(self, named: str) -> None:
        self.named = named  # the checkpoint, as `describe_source` returns it
        self._saved: list[set[str]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the names of the saved settings."""
        states = checkpoint.get("optimizer_states") or []
        # without configure_optimizers Lightning saves an empty state
        self._saved = [set().union(*(group.keys() for group in state.get("param_groups", ()))) for state in states]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare them with the settings of the optimizers.

        Raises:
            UserError: A setting is missing in the checkpoint, which holds unknown ones.
        """
        for saved, optimizer in zip(self._saved, trainer.optimizers, strict=False):
            needed = set(optimizer.defaults)
            # a newer release of the same optimizer may add settings, but removes none
            if (missing := sorted(needed - saved)) and saved - needed - NOT_SETTINGS:
                raise UserError(
                    f"{self.named} was saved with another optimizer: it holds no {', '.join(missing)}, "
                    f"which {type(optimizer).__name__} needs. Set the model.optimizer of that run, or load only the "
                    "weights with resume.mode=weights."
                )


def _reset(optimizer: Optimizer, built: Mapping[str, Any], positions: Mapping[int, int]) -> None:
    """Give an optimizer its state as built; groups that a hook added keep their settings, and have no state."""
    present = optimizer.state_dict()
    for group, built_group in zip(present.get("param_groups", ()), built.get("param_groups", ()), strict=False):
        group |= {name: value for name, value in built_group.items() if name not in ("params", "param_names")}
    as_built = [positions.get(id(weight)) for weight in _weights(optimizer)]
    states = built.get("state", {})
    present["state"] = {number: states[old] for number, old in enumerate(as_built) if old in states}
    load_optimizer_state(optimizer, present)


def _weights(optimizer: Optimizer) -> list[Any]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    return [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
