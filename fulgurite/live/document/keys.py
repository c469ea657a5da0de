"""The keys of a live document, their types and ranges; imports no torch.

A document is flat: dotted key to value. A command is a counter: a number above that of the document before runs it
once, so that a later run ignores a left-over command.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fulgurite.core.errors import UserError, did_you_mean

Document = dict[str, Any]  # dotted key to value

_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")  # YAML reads `1e-3` as text
MAX_VALUES = 10_000
MAX_INT = 2**63 - 1  # of torch, of loggers, and of programs that read the history


@dataclass(frozen=True)
class Key:
    """A setting of a run.

    Attributes:
        kind: `int` or `float`.
        what: What it sets, for the help.
        low: The smallest value.
        above: Whether `low` itself is refused.
        unlimited: Whether -1 stands for no limit.
        optional: Whether null switches it off.
    """

    kind: type
    what: str
    low: float = 0
    above: bool = False
    unlimited: bool = False
    optional: bool = False


KEYS = {
    "lr_scale": Key(float, "factor of the learning rate schedule, from its start on", above=True),
    "lr": Key(
        float, "learning rate now, of the first parameter group; the schedule continues in proportion", above=True
    ),
    "weight_decay": Key(float, "largest weight decay of the parameter groups; the others keep their ratio to it"),
    "max_epochs": Key(int, "epochs after which training ends; -1: no limit", low=1, unlimited=True),
    "max_steps": Key(int, "optimizer steps after which training ends; -1: no limit", low=1, unlimited=True),
    "patience": Key(int, "validations without improvement before EarlyStopping stops the run"),
    "log_every_n_steps": Key(int, "optimizer steps between two logged ones", low=1),
    "check_val_every_n_epoch": Key(int, "epochs between two validations", low=1),
    "accumulate_grad_batches": Key(int, "batches of one optimizer step", low=1),
    "gradient_clip_val": Key(
        float, "largest norm, or value, of the gradients; null in live.yaml: no clipping", above=True, optional=True
    ),
}
COMMANDS = {
    "checkpoint": "save checkpoints/live-<step>.ckpt after this step",
    "validate": "validate after this step",
    "stop_after_step": "end training after this step, validated",
    "stop_after_epoch": "end training after this epoch",
}
SECTIONS = ("model", "data")  # keys below these go to `on_live_change` of the LightningModule and the data module


def flatten(parsed: Any) -> Document:
    """Return a parsed document with dotted keys, of which `model: {dropout: 0.1}` and `model.dropout: 0.1` are one.

    Raises:
        UserError: It is not a dictionary, a key is not text or is given twice, or it has too many values.
    """
    if not isinstance(parsed, Mapping):
        raise UserError(f"the document is a {type(parsed).__name__}, not keys with values. Write `lr_scale: 0.1`.")
    flat: Document = {}
    for key, value in _leaves(parsed, ""):
        if key in flat:
            raise UserError(f"{key}: is given twice. Write it once.")
        flat[key] = value
        if len(flat) > MAX_VALUES:
            raise UserError(f"the document has more than {MAX_VALUES} values. Write the keys to change only.")
    return flat


def _leaves(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if not isinstance(name, str) or not name:
            raise UserError(f"{prefix}{name!r}: is not a name. Write the key as text.")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check(document: Document) -> tuple[Document, list[str]]:
    """Return a document with numbers in the types of their keys, and one line for each wrong key or value."""
    typed, problems = dict(document), []
    for name, value in document.items():
        if not name.isprintable() or "" in name.split("."):
            problem = f"{name!r}: is not a name. Write e.g. model.dropout."
        elif name in KEYS:
            typed[name], problem = _check_setting(name, KEYS[name], value)
        elif name in COMMANDS:
            is_counter = type(value) is int and 0 <= value <= MAX_INT
            problem = "" if is_counter else f"{name}={value!r}: is not a count. Raise the number by 1 to run it once."
        elif name.partition(".")[0] in SECTIONS and "." in name:
            problem = _check_value(name, value)
        else:
            known = [*KEYS, *COMMANDS, *(f"{section}.<name>" for section in SECTIONS)]
            near = did_you_mean(name, known) or f". The keys are {', '.join(known)}."
            problem = f"{name}={'null' if value is None else repr(value)}: is not a live key{near}"
        if problem:
            problems.append(problem)
    if "lr" in document and "lr_scale" in document:
        problems.append(f"lr={document['lr']}: excludes lr_scale={document['lr_scale']}. Remove one of them.")
    return typed, problems


def _check_value(name: str, value: Any) -> str:
    """Return why a value of model or data cannot stand in the history, which is JSON, or an empty string."""
    if isinstance(value, list):
        return next(filter(None, (_check_value(f"{name}[{position}]", one) for position, one in enumerate(value))), "")
    if isinstance(value, Mapping):
        return next(filter(None, (_check_value(f"{name}.{key}", one) for key, one in value.items())), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name}={value}: is not finite. Set a number, or text in quotes."
    if isinstance(value, int) and abs(value) > MAX_INT:
        return f"{name}: is a number of more than 64 bits. Set a smaller one, or text in quotes."
    if not isinstance(value, (str, int, float, bool, type(None))):
        return f"{name}: is of the type {type(value).__name__}. Set numbers, texts, booleans, null or lists of them."
    return ""


def _check_setting(name: str, key: Key, value: Any) -> tuple[Any, str]:
    """Return the value in the key's type, and why it is refused or an empty string."""
    if value is None and key.optional:
        return None, ""
    if key.kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float) if key.kind is float else int):
        kind = "a whole number" if key.kind is int else "a number"
        return value, f"{name}={value!r}: is not {kind}. Set {_range(key)}."
    if isinstance(value, int) and abs(value) > MAX_INT:
        return value, f"{name}: is a number of more than 64 bits. Set {_range(key)}."
    if not math.isfinite(value):
        return value, f"{name}={value}: is not finite. Set {_range(key)}."
    if (value < key.low or (key.above and value == key.low)) and not (key.unlimited and value == -1):
        return value, f"{name}={value}: is out of range. Set {_range(key)}."
    return key.kind(value), ""


def _range(key: Key) -> str:
    low = int(key.low)
    text = f"a number above {low}" if key.above else f"{low} or more"
    return text + (", or -1" if key.unlimited else ", or null" if key.optional else "")


def diff(before: Document, after: Document) -> Document:
    """Return the settings that were added, changed or removed, with their new values; None for a removed one."""
    names = dict.fromkeys([*before, *after])
    return {
        name: after.get(name)
        for name in names
        if name not in COMMANDS and not _is_same(before.get(name, KEYS), after.get(name, KEYS))
    }


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def commands_of(before: Document, after: Document) -> dict[str, int]:
    """Return the commands whose counter is higher than before, and the counter."""
    return {name: after[name] for name in COMMANDS if after.get(name, 0) > before.get(name, 0)}
