"""Read, check and set the settings of a trainer that a live edit names."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler

from fulgurite.live.document.keys import KEYS, Document
from fulgurite.live.schedules import current_rate, extend_schedules, scale, slots_of, why_not_scalable

Undo = Callable[[], None]

# Lightning 2.6 reads these while it trains: `trainer.max_epochs` is a property, and `val_check_interval` has no effect.
ATTRIBUTES = {
    "max_epochs": "fit_loop.max_epochs",
    "max_steps": "fit_loop.epoch_loop.max_steps",
    "log_every_n_steps": "log_every_n_steps",
    "check_val_every_n_epoch": "check_val_every_n_epoch",
    "accumulate_grad_batches": "accumulate_grad_batches",
    "gradient_clip_val": "gradient_clip_val",
}
LENGTHS = {"max_epochs", "max_steps", "accumulate_grad_batches"}  # settings that change the number of optimizer steps
RATES = {"lr", "lr_scale"}
OF_LIGHTNING = {"accumulate_grad_batches", "gradient_clip_val"}  # settings without effect in manual optimization


class Settings:
    """The settings of one training.

    Attributes:
        start: The values of the config, to which a removed key returns.
        scale: Factor of the learning rate schedule.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.start: dict[str, Any] = {key: attrgetter(path)(trainer) for key, path in ATTRIBUTES.items()}
        self.start["patience"] = [callback.patience for callback in self._early_stopping]
        self.start["weight_decay"] = None  # of each parameter group, once the optimizers are built
        self.scale = 1.0

    def read_weight_decay(self) -> None:
        """Take the weight decay of the present groups as that of the config."""
        self.start["weight_decay"] = [group.get("weight_decay") for group in self._groups]

    def restore(self, document: Document, saved: dict[str, Any]) -> list[str]:
        """Set the limits of a resumed run before Lightning compares them with its progress.

        Returns:
            The keys whose value in the config is another one than `saved`, that of the run before: it stays.
        """
        kept = [key for key in ATTRIBUTES if key in document and key in saved and saved[key] != self.start[key]]
        for key in ATTRIBUTES.keys() & document.keys() - {*kept}:
            self._set(key, document[key])
        return kept

    # checks

    def problems(self, changed: Document, document: Document) -> list[str]:
        """Return one line for each changed key that this run cannot take."""
        found = []
        for key in KEYS:
            if key in changed:
                value = document.get(key, self.start.get(key))
                if reason := self._why_not(key, value, is_removed=key not in document):
                    found.append(f"{key}={'removed' if key not in document else value}: {reason}.")
        return found

    def _why_not(self, key: str, value: Any, *, is_removed: bool) -> str:
        trainer = self.trainer
        if key in RATES:
            return self._why_no_rate(key)
        if key == "max_epochs" and -1 < value <= trainer.current_epoch:
            return (
                f"the run is in epoch {trainer.current_epoch}, counted from 0. Set {trainer.current_epoch + 1} or more"
            )
        if key == "max_steps" and -1 < value <= trainer.global_step:
            return f"the run has taken {trainer.global_step} steps. Set {trainer.global_step + 1} or more"
        if key == "weight_decay" and any(group.get("weight_decay") is None for group in self._groups):
            return "the optimizer has no weight_decay. Remove the key"
        if key == "patience" and not self._early_stopping:
            return "the run has no EarlyStopping. Remove the key"
        if key == "check_val_every_n_epoch":
            return self._why_no_validation(is_removed=is_removed)
        if key in OF_LIGHTNING and not trainer.lightning_module.automatic_optimization:
            return "the model optimizes manually, where Lightning does not use it. Remove the key"
        return self._why_no_accumulation() if key == "accumulate_grad_batches" else ""

    def _why_no_validation(self, *, is_removed: bool) -> str:
        if not self.trainer.enable_validation:
            return "the run has no validation. Remove the key"
        if self.trainer.check_val_every_n_epoch is None and not is_removed:
            return "the run validates every trainer.val_check_interval batches over all epochs. Remove the key"
        return ""

    def _why_no_accumulation(self) -> str:
        if self.trainer.strategy.handles_gradient_accumulation:
            return f"{type(self.trainer.strategy).__name__} accumulates by itself. Remove the key"
        kinds = map(type, vars(self.trainer)["callbacks"])
        if any(issubclass(kind, GradientAccumulationScheduler) for kind in kinds):
            return "GradientAccumulationScheduler sets it at each epoch. Remove the key"
        return ""

    def _why_no_rate(self, key: str) -> str:
        slots = slots_of(self.trainer)
        if not any(slot.key == "lr" for slot in slots):
            return "no optimizer has a learning rate. Remove the key"
        if key == "lr" and current_rate(slots) == 0:
            return "the learning rate is 0 now, so the schedule cannot be scaled to it. Set lr_scale, or try later"
        if reason := why_not_scalable(self.trainer, 0.5):
            return f"{reason}. Name the attribute with lr, e.g. warmup_lr, or set the optimizer's lr in on_live_change"
        return ""

    # changes

    def apply(self, changed: Document, document: Document, undo: list[Undo]) -> None:
        """Set the changed keys, which passed `problems`, and add to `undo` what reverts it, to be called in reverse."""
        for key in KEYS:
            if key in changed and key not in RATES:
                undo += [self._set(key, document.get(key, self.start.get(key)))]
        if RATES & changed.keys():
            undo += [self._scale(document)]
        if LENGTHS & changed.keys():
            steps = self.trainer.global_step + self.trainer.estimated_stepping_batches
            undo += [extend_schedules(self.trainer, steps)]

    def _set(self, key: str, value: Any) -> Undo:
        """Set one key; a list has a value for each callback or parameter group."""
        if key == "patience":
            callbacks = self._early_stopping
            values = value if isinstance(value, list) else [value] * len(callbacks)
            return _set_all([(vars(each), "patience", one) for each, one in zip(callbacks, values, strict=True)])
        if key == "weight_decay":
            groups = self._groups
            values = value if isinstance(value, list) else self._in_proportion(value)
            return _set_all([(each, "weight_decay", one) for each, one in zip(groups, values, strict=False)])
        path, _, name = ATTRIBUTES[key].rpartition(".")
        owner = attrgetter(path)(self.trainer) if path else self.trainer
        return _set_all([(vars(owner), name, value)])

    def _scale(self, document: Document) -> Undo:
        slots, before = slots_of(self.trainer), self.scale
        now = current_rate(slots)
        exact = document.get("lr")
        self.scale = before * exact / now if exact is not None else document.get("lr_scale", 1.0)
        undo_rates = scale(slots, self.scale / before, exact=exact)

        def undo() -> None:
            self.scale = before
            undo_rates()

        return undo

    def _in_proportion(self, largest: float) -> list[float]:
        """Return the weight decay of each group: groups without any, such as biases, keep 0."""
        start = [value or 0.0 for value in self.start["weight_decay"] or []]
        start += [start[-1] if start else 0.0] * (len(self._groups) - len(start))  # groups that a callback added
        top = max(start, default=0.0)
        return [largest * value / top if top else largest for value in start]

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]

    @property
    def _early_stopping(self) -> list[EarlyStopping]:
        return [callback for callback in vars(self.trainer)["callbacks"] if isinstance(callback, EarlyStopping)]


def _set_all(places: list[tuple[dict[str, Any], str, Any]]) -> Undo:
    before = [(holder, name, holder[name]) for holder, name, _ in places]
    for holder, name, value in places:
        holder[name] = value

    def undo() -> None:
        for holder, name, value in before:
            holder[name] = value

    return undo
