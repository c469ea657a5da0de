"""Save and restore the settings of a trainer and of Lightning's callbacks that user code changes while it trains."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.compat.lightning_loaders import default_val_check_batch
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.user_state.callback_settings import (
    callback_settings,
    callbacks_by_key,
    is_callback_setting,
    set_callback_settings,
)

# settings of a trainer's parts; those of the trainer itself are its public attributes
OF_PARTS = (
    "fit_loop.max_epochs",
    "fit_loop.min_epochs",
    "fit_loop.epoch_loop.max_steps",
    "fit_loop.epoch_loop.min_steps",
    "lightning_module.automatic_optimization",
)
PARTS = {name.rpartition(".")[0] for name in OF_PARTS}
NO_SETTINGS = ("should_stop", "num_sanity_val_steps", "fast_dev_run", "datamodule")
PLAIN = (bool, int, float, str, type(None))

Changes = dict[str, list[Any]]  # by setting, the value at the start, where there was one, and the present one


def read_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the present settings that are numbers, text or None, also attributes that user code gave the trainer."""
    own = {name: value for name, value in vars(trainer).items() if not name.startswith("_") and name not in NO_SETTINGS}
    if own["val_check_batch"] in (None, default_val_check_batch(trainer)):  # Lightning computes it with the loaders
        del own["val_check_batch"]
    values = own | {name: attrgetter(name)(trainer) for name in OF_PARTS} | callback_settings(trainer)
    return {name: value for name, value in values.items() if isinstance(value, PLAIN)}


def changed_settings(trainer: Trainer, start: dict[str, Any]) -> Changes:
    """Return the settings that are not those of the start, and name those that cannot be saved."""
    present, callbacks = read_settings(trainer), dict(callbacks_by_key(trainer))
    for name in start.keys() - present.keys():
        if " " in name and name.rpartition(".")[0] not in callbacks:
            continue  # Lightning's tuners train without callbacks
        name_inexact(
            name if " " in name else f"trainer.{name}",
            "it changed while the run trained, and only numbers and text are saved. Set it to a number.",
        )
    return {
        name: [*([start[name]] if name in start else []), value]
        for name, value in present.items()
        if name not in start or not _is_same(value, start[name])
    }


def restore_settings(trainer: Trainer, changes: Changes, start: dict[str, Any]) -> None:
    """Set what was changed before the save, unless the config of the resumed run has another value."""
    for name, (*before, value) in changes.items():
        if not _is_saved(trainer, name, value):
            name_inexact(name, "runs do not save this setting, so the checkpoint may not set it. It keeps its value.")
        elif (name in start) == bool(before) and (not before or _is_same(start[name], before[0])):
            set_settings(trainer, {name: value})


def _is_saved(trainer: Trainer, name: str, value: Any) -> bool:
    """Return whether `read_settings` may return a setting; a file could name a path to which a callback writes."""
    if not isinstance(value, PLAIN):
        return False
    if " " in name:
        return is_callback_setting(trainer, name)
    is_own = "." not in name and not name.startswith("_") and name not in NO_SETTINGS
    is_plain = isinstance(vars(trainer).get(name), PLAIN) and not hasattr(type(trainer), name)
    return name in OF_PARTS or (is_own and is_plain)


def set_settings(trainer: Trainer, values: dict[str, Any]) -> None:
    """Set settings of a trainer and of Lightning's callbacks, whose names hold a space."""
    set_callback_settings(trainer, {name: value for name, value in values.items() if " " in name})
    for name, value in values.items():
        path, _, attribute = name.rpartition(".")
        owner = trainer if not path else attrgetter(path)(trainer) if path in PARTS else None
        if owner is not None and not _is_same(getattr(owner, attribute, owner), value):
            setattr(owner, attribute, value)


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)  # 1 is a number of batches, 1.0 is all of them
