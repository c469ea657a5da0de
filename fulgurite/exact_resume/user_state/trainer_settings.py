"""Save and restore the settings of a trainer and of Lightning's callbacks that user code changes while it trains."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.exact_resume.user_state.callback_settings import callback_settings, set_callback_settings

# Lightning reads these at each batch, epoch or validation
SETTINGS = (
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
    "log_every_n_steps",
    "check_val_every_n_epoch",
    "val_check_batch",
    "reload_dataloaders_every_n_epochs",
    "fit_loop.max_epochs",
    "fit_loop.min_epochs",
    "fit_loop.epoch_loop.max_steps",
    "fit_loop.epoch_loop.min_steps",
    "lightning_module.automatic_optimization",
    *("limit_train_batches", "limit_val_batches", "val_check_interval"),  # when it makes loaders
)

Changes = dict[str, list[Any]]  # by setting, the value at the start and the present one


def read_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the present settings."""
    values = {name: attrgetter(name)(trainer) for name in SETTINGS}
    if values["val_check_batch"] is None:  # there are no loaders yet
        del values["val_check_batch"]
    return values | callback_settings(trainer)


def changed_settings(trainer: Trainer, start: dict[str, Any]) -> Changes:
    """Return the settings that are not those of the start, where they are numbers, text or None."""
    return {
        name: [start[name], value]
        for name, value in read_settings(trainer).items()
        if name in start and not _is_same(value, start[name]) and isinstance(value, (int, float, str, type(None)))
    }


def restore_settings(trainer: Trainer, changes: Changes, start: dict[str, Any]) -> None:
    """Set what was changed before the save, unless the config of the resumed run has another value."""
    for name, (before, value) in changes.items():
        if name in start and _is_same(start[name], before):
            set_settings(trainer, {name: value})


def set_settings(trainer: Trainer, values: dict[str, Any]) -> None:
    """Set settings of a trainer."""
    set_callback_settings(trainer, {name: value for name, value in values.items() if name not in SETTINGS})
    for name in values.keys() & set(SETTINGS):
        value = values[name]
        path, _, attribute = name.rpartition(".")
        owner = attrgetter(path)(trainer) if path else trainer
        if not _is_same(getattr(owner, attribute), value):
            setattr(owner, attribute, value)


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)  # 1 is a number of batches, 1.0 is all of them
