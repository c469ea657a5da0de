"""Save and restore objects of classes that inherit from a number, a text, an array or a tensor."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
import torch

from fulgurite.exact_resume.values.kinds import ATOMS, class_name, find_class

SCALARS = (int, float, complex, str, bytes)
OF_LIBRARIES = ("torch.", "lightning.", "numpy.random.")  # such as distributed tensors and lazy parameters


@cache
def is_subclass(kind: Any) -> bool:
    """Return whether a class inherits from a number, a text, an array or a tensor, and adds what is saved here."""
    if kind in (np.ndarray, np.memmap) or issubclass(kind, (np.generic, Enum)):
        return False
    if f"{kind.__module__}.".startswith(OF_LIBRARIES) or kind in ATOMS:
        return False
    return issubclass(kind, (np.ndarray, torch.Tensor, *SCALARS))


def base_of(value: Any) -> Any:
    """Return the number or text itself, or a plain array or tensor in the same memory."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if isinstance(value, torch.Tensor):
        return value.as_subclass(torch.Tensor)
    base: Any = next(kind for kind in SCALARS if isinstance(value, kind))
    return base.__getnewargs__(value)[0]


def subclass_to_plain(value: Any, to_plain: Callable[[Any], list[Any] | None]) -> list[Any] | None:
    """Return an object as class, base, mask and attributes; None where one of them cannot be saved."""
    base, mask, attributes = base_of(value), None, dict(getattr(value, "__dict__", {}))
    if isinstance(value, np.ma.MaskedArray):
        mask, attributes = to_plain(np.ma.getmaskarray(value)), {}
    plain = base if type(base) in ATOMS else to_plain(base)
    if plain is None or not all(type(part) in ATOMS for part in attributes.values()):
        return None
    return ["subclass", [class_name(type(value)), plain, mask, attributes]]


def subclass_from_plain(
    content: list[Any], current: Any, device: torch.device, from_plain: Callable[[Any, Any, torch.device], Any]
) -> Any:
    """Return the object that `subclass_to_plain` converted: `current` with the saved content, or a new one."""
    name, plain, mask, attributes = content
    kind: Any = find_class(name)
    if not isinstance(kind, type) or not is_subclass(kind):
        return current
    if type(plain) in ATOMS:
        made: Any = type(plain).__new__(kind, plain)
    else:
        held = base_of(current) if type(current) is kind else None
        base = from_plain(plain, held, device)
        made = current if held is not None and base is held else _view(base, kind)
    if mask is not None:
        made.mask = from_plain(mask, None, device)
    if attributes:
        vars(made).update(attributes)
    return made


def _view(base: Any, kind: Any) -> Any:
    return base.as_subclass(kind) if isinstance(base, torch.Tensor) else base.view(kind)
