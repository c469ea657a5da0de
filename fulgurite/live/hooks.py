"""Call `on_live_change` of the LightningModule and the data module once for each edit below their prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.live.document.keys import SECTIONS, Document

HOOK = "on_live_change"


def owners(trainer: Trainer) -> dict[str, Any]:
    """Return the object whose keys have a prefix, by the prefix; `data` only with a data module."""
    found = zip(SECTIONS, (trainer.lightning_module, getattr(trainer, "datamodule", None)), strict=True)
    return {section: owner for section, owner in found if owner is not None}


def problems(trainer: Trainer, changed: Document) -> list[str]:
    """Return one line for each changed key that no object takes."""
    found, present = [], owners(trainer)
    for key in changed:
        section = key.partition(".")[0]
        if section not in SECTIONS or "." not in key:
            continue
        if not callable(getattr(owner := present.get(section), HOOK, None)):
            what = (
                f"{type(owner).__name__} has no {HOOK}(changed)" if owner is not None else "the run has no data module"
            )
            found.append(f"{key}: {what}. Remove the key.")
    return found


def calls(
    trainer: Trainer, before: Document, after: Document, changed: Document
) -> list[tuple[Callable[[], Any], ...]]:
    """Return a function for each object with changed keys, and one that undoes it.

    `on_live_change(changed)` gets the keys without their prefix, and their new values; None for a removed key. The
    second function calls it with the former values.
    """
    found: list[tuple[Callable[[], Any], ...]] = []
    for section, owner in owners(trainer).items():
        keys = [key for key in changed if key.startswith(f"{section}.")]
        if keys:
            hook = getattr(owner, HOOK)
            found.append(tuple(_call(hook, section, keys, document) for document in (after, before)))
    return found


def _call(hook: Callable[[Document], Any], section: str, keys: list[str], document: Document) -> Callable[[], Any]:
    return lambda: hook({key.removeprefix(f"{section}."): document.get(key) for key in keys})
