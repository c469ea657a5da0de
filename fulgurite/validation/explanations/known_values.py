"""Values that classes of Lightning and torch refuse, though their annotations allow them."""

from __future__ import annotations

from typing import Any

from fulgurite.core.errors import did_you_mean

_MODES = ("min", "max")
# class and argument -> the text that it takes
CHOICES = {("EarlyStopping", "mode"): _MODES, ("ModelCheckpoint", "mode"): _MODES}


def explain_known(target: str, name: str, value: Any) -> str:
    """Return why a class of Lightning or torch refuses a value of an argument; empty for other values."""
    kind = target.rpartition(".")[2]
    options = CHOICES.get((kind, name), ())
    if options and isinstance(value, str) and value not in options:
        return f"{kind} wants {' or '.join(map(repr, options))}{did_you_mean(value, options)}"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if (kind, name) == ("ReduceLROnPlateau", "factor") and is_number and value >= 1:
        return "must be below 1: it multiplies the learning rate"
    if (kind, name) == ("Trainer", "devices") and (
        value in ("0", "", []) or (is_number and (value == 0 or value < -1))
    ):
        return "must be 1 or more, a list of devices, or auto"
    return ""
