"""Save and restore a collate function that takes the place of another one amid a run, by its name."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any

from torch.utils.data import default_collate, default_convert

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.used_code.kept_values import Linked
from fulgurite.exact_resume.values.kinds import find_class, is_users

FIRST = "_fulgurite_collate_fn"  # attribute of an evaluation loader: the function that it was made with
COLLATE_REMEDY = "Set it to a function at the top of a module"


def note_first(loader: Any) -> None:
    """Note the collate function that an evaluation loader was made with."""
    vars(loader).setdefault(FIRST, loader.collate_fn)


def collate_setting(loader: Any, first: Any) -> Linked:
    """Return the collate function of a loader by its name, or itself where it has none; a write replaces it.

    The name of `first`, the function that the user's loader was made with, is an empty text.
    """
    present = loader.collate_fn
    named = "" if present is first else _name_of(present)
    return Linked({"collate_fn": named}, partial(_replace, loader, first))


def _name_of(function: Any) -> Any:
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    return name if _find(name) is function else function


def _find(name: str) -> Any:
    """Return a function of the user's code, or one of torch's collate functions; None: there is none of this name."""
    found = find_class(name)
    is_users_own = isinstance(found, FunctionType) and is_users(found.__module__)
    return found if is_users_own or found in (default_collate, default_convert) else None


def _replace(loader: Any, first: Any, _attribute: str, function: Any) -> None:
    """Give a loader the collate function that the interrupted run had set."""
    if isinstance(function, str):
        found = first if function == "" else _find(function)
        if found is None:
            name = function.replace(":", ".")
            name_inexact("DataLoader.collate_fn", f"the run had set it to {name}, which is not there after the resume.")
            return
        function = found
    loader.collate_fn = function
