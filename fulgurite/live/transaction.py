"""Check an edit against a run, and apply it as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.core.errors import FulguriteError
from fulgurite.live import hooks
from fulgurite.live.commands import why_not
from fulgurite.live.document.history import Edit
from fulgurite.live.document.keys import Document, check
from fulgurite.live.settings import Settings

Undo = Callable[[], Any]


def problems_of(trainer: Trainer, settings: Settings | None, edit: Edit) -> list[str]:
    """Return one line for each key that this run cannot take."""
    assert settings is not None
    found = check(edit.document)[1]  # a replayed one may be of another version
    if found:
        return found
    found = settings.problems(edit.changed, edit.document)
    found += hooks.problems(trainer, edit.changed)
    return found + [f"{name}: {reason}." for name in edit.commands if (reason := why_not(trainer, name))]


def apply_edit(trainer: Trainer, settings: Settings, before: Document, edit: Edit) -> tuple[str, list[Undo]]:
    """Call the hooks of model and data, then set the settings.

    Args:
        trainer: The trainer.
        settings: Its settings.
        before: The document in force.
        edit: What changes.

    Returns:
        Why it failed, or an empty string, and what undoes the part that was done, to be called in reverse. The caller
        undoes it, as another rank may have failed.
    """
    undo: list[Undo] = []
    try:
        if found := problems_of(trainer, settings, edit):
            return " ".join(found), undo
        for call, call_back in hooks.calls(trainer, before, edit.document, edit.changed):
            call()
            undo.append(call_back)
        settings.apply(edit.changed, edit.document, undo)
    except Exception as error:  # noqa: BLE001 - a hook of the user may raise anything, and the run trains on
        text = str(error) if isinstance(error, FulguriteError) else f"{type(error).__name__}: {error}"
        reason = " ".join(text.split()).rstrip(".")  # one line
        return f"{edit.describe()}: {hooks.HOOK} refused it ({reason}). Set another value.", undo
    return "", undo
