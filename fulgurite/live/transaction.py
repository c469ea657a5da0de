"""Check an edit against a run, and apply it as a whole or not at all.

`on_live_change` of the LightningModule and the data module is called once for each edit below their prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.core.errors import FulguriteError
from fulgurite.live.document.history import Edit
from fulgurite.live.document.keys import SECTIONS, Document, check
from fulgurite.live.settings import Settings

Undo = Callable[[], Any]
HOOK = "on_live_change"


def problems_of(trainer: Trainer, settings: Settings | None, edit: Edit) -> list[str]:
    """Return one line for each key that this run cannot take."""
    assert settings is not None
    found = check(edit.document)[1]  # a replayed one may be of another version
    if found:
        return found
    found = settings.problems(edit.changed, edit.document) + _without_hook(trainer, edit.changed)
    if "validate" in edit.commands and not trainer.enable_validation:
        found.append("validate: the run has no validation. Remove the command.")
    return found


def apply_edit(trainer: Trainer, settings: Settings, before: Document, edit: Edit) -> tuple[str, list[Undo]]:
    """Call the hooks of model and data, then set the settings.

    Returns:
        Why it failed, or an empty string, and what undoes the part that was done, to be called in reverse. The caller
        undoes it, as another rank may have failed.
    """
    undo: list[Undo] = []
    try:
        if found := problems_of(trainer, settings, edit):
            return " ".join(found), undo
        for section, owner in _owners(trainer).items():
            if keys := [key for key in edit.changed if key.startswith(f"{section}.")]:
                call = partial(_call_hook, owner, section, keys)
                call(edit.document)
                undo.append(partial(call, before))
        settings.apply(edit.changed, edit.document, undo)
    except Exception as error:  # noqa: BLE001 - a hook of the user may raise anything, and the run trains on
        text = str(error) if isinstance(error, FulguriteError) else f"{type(error).__name__}: {error}"
        reason = " ".join(text.split()).rstrip(".")  # one line
        return f"{edit.describe()}: {HOOK} refused it ({reason}). Set another value.", undo
    return "", undo


def _owners(trainer: Trainer) -> dict[str, Any]:
    """Return the object whose keys have a prefix, by the prefix; `data` only with a data module."""
    found = zip(SECTIONS, (trainer.lightning_module, getattr(trainer, "datamodule", None)), strict=True)
    return {section: owner for section, owner in found if owner is not None}


def _without_hook(trainer: Trainer, changed: Document) -> list[str]:
    """Return one line for each changed key that no object takes."""
    found, owners = [], _owners(trainer)
    for key in changed:
        section, dot, _ = key.partition(".")
        if dot and section in SECTIONS and not callable(getattr(owner := owners.get(section), HOOK, None)):
            is_there = owner is not None
            what = f"{type(owner).__name__} has no {HOOK}(changed)" if is_there else "the run has no data module"
            found.append(f"{key}: {what}. Remove the key.")
    return found


def _call_hook(owner: Any, section: str, keys: list[str], document: Document) -> None:
    """Pass the keys without their prefix, and their values in a document; None for a removed key."""
    getattr(owner, HOOK)({key.removeprefix(f"{section}."): document.get(key) for key in keys})
