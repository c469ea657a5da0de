"""Callbacks that put settings of the config in the place of those a checkpoint brings."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping

from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


class OverrideRestoredSettings(Callback):
    """Goes on from a checkpoint, but with some settings, or the whole state, of the optimizers and schedulers as built.

    Lightning restores both between `on_fit_start` and `on_train_start`: the first sees them as the config made them.

    Args:
        reset: `optimizer`, `scheduler`: these begin anew.
        apply: Dotted keys of the config whose values replace those of the checkpoint, e.g. `model.optimizer.lr`.
    """

    def __init__(self, reset: Sequence[str], apply: Sequence[str]) -> None:
        self.reset = set(reset)
        self.apply = [key.rpartition(".")[2] for key in apply]
        self._optimizers: list[dict[str, Any]] = []
        self._schedulers: list[dict[str, Any]] = []
        self._patience: list[int] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the patience of early stopping before the checkpoint's is loaded."""
        self._patience = [callback.patience for callback in _early_stopping(trainer)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the config made."""
        self._optimizers = [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers]
        self._schedulers = [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it in the place of what the checkpoint brought."""
        for optimizer, built in zip(trainer.optimizers, self._optimizers, strict=True):
            if "optimizer" in self.reset:
                optimizer.load_state_dict(built)
            for group, fresh in zip(optimizer.param_groups, built["param_groups"], strict=True):
                self._apply_to_group(group, fresh)
        for config, fresh in zip(trainer.lr_scheduler_configs, self._schedulers, strict=True):
            if "scheduler" in self.reset:
                config.scheduler.load_state_dict(fresh)
            else:
                vars(config.scheduler).update({name: fresh[name] for name in self._of_scheduler(fresh)})
        if "patience" in self.apply:
            for callback, patience in zip(_early_stopping(trainer), self._patience, strict=True):
                callback.patience = patience

    def _apply_to_group(self, group: dict[str, Any], fresh: Mapping[str, Any]) -> None:
        names = [name for name in self.apply if name in fresh]
        if "lr" in names and "initial_lr" in fresh:
            names.append("initial_lr")
        group.update({name: fresh[name] for name in names})

    def _of_scheduler(self, fresh: Mapping[str, Any]) -> list[str]:
        names = [name for name in self.apply if name in fresh]
        return [*names, "base_lrs"] if "lr" in self.apply and "base_lrs" in fresh else names


class LoadOptimizerState(Callback):
    """Gives the optimizers of a new run the state of those in a checkpoint; their settings stay the config's.

    Args:
        states: `optimizer_states` of a checkpoint.
        source: The checkpoint, for messages.
    """

    def __init__(self, states: Sequence[Mapping[str, Any]], source: str) -> None:
        self.states = states
        self.source = source

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the states.

        Raises:
            UserError: They are of other optimizers.
        """
        if len(self.states) != len(trainer.optimizers):
            raise UserError(
                f"resume.mode=hotstart: {self.source} holds the state of {len(self.states)} optimizers, "
                f"this run has {len(trainer.optimizers)}; take the weights only with resume.mode=weights"
            )
        for optimizer, state in zip(trainer.optimizers, self.states, strict=True):
            settings = optimizer.state_dict()["param_groups"]
            try:
                # a copy of the settings: the checkpoint's own would bring its learning rate
                optimizer.load_state_dict({"state": state["state"], "param_groups": settings})
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"resume.mode=hotstart: the optimizer's state in {self.source} does not fit ({error}); "
                    "take the weights only with resume.mode=weights"
                ) from error


def _early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    return [callback for callback in callbacks if isinstance(callback, EarlyStopping)]


# What a parameter group holds beside an optimizer's settings: its parameters, what schedulers put in.
NOT_OF_OPTIMIZERS = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


class RequireSameOptimizer(Callback):
    """Refuses to go on from a checkpoint whose optimizer was another one, before its state is taken.

    Args:
        path: The checkpoint, for the message.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._saved: list[set[str]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which settings the optimizers had."""
        states = checkpoint.get("optimizer_states") or []
        self._saved = [set().union(*(group.keys() for group in state["param_groups"])) for state in states]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare them with those that were made."""
        for saved, optimizer in zip(self._saved, trainer.optimizers, strict=False):
            name, needed = type(optimizer).__name__, set(optimizer.defaults)
            # another release of the same optimizer may know settings more, but none less
            if (missing := sorted(needed - saved)) and saved - needed - NOT_OF_OPTIMIZERS:
                raise UserError(
                    f"ckpt_path={self.path}: was saved with another optimizer: it holds no {', '.join(missing)}, which "
                    f"{name} needs; give the model.optimizer of that run, or take its weights alone with "
                    "resume.mode=weights"
                )
