"""Save and restore state that user code keeps in plain attributes, and name what cannot be saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import Dataset

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.user_state.loader_owners import Owner
from fulgurite.exact_resume.user_state.owners import known_ids, owners
from fulgurite.exact_resume.user_state.plain_values import (
    NotPlainError,
    fingerprint,
    from_plain,
    is_constant,
    is_iterator,
    set_in_place,
    size_of,
    to_plain,
)

MAX_BYTES = 8 * 2**20  # of all attributes of a rank

State = dict[str, dict[str, Any]]  # converted values by owner and name


class Attributes:
    """The attributes of a run's model, data and callbacks that changed since the start of `fit`."""

    def __init__(self) -> None:
        self._start: dict[str, dict[str, Any]] = {}  # fingerprints by owner and name
        self._changed: dict[str, set[str]] = {}

    def remember(self, trainer: Trainer) -> None:
        """Take the present values of new owners as those of the start."""
        known = known_ids(trainer)
        for owner in owners(trainer):
            if owner.key not in self._start:
                self._start[owner.key] = {name: fingerprint(value, known) for name, value in _attributes(owner)}

    def forget(self, keys: Iterable[str]) -> None:
        """Forget the values of owners whose objects were replaced."""
        for key in keys:
            self._start.pop(key, None)
            self._changed.pop(key, None)

    def state_dict(self, trainer: Trainer, keys: tuple[str, ...] = (), *, names: bool = True) -> State:
        """Return what changed, of the owners with these keys; name what cannot be saved.

        Args:
            trainer: The trainer of the run.
            keys: Keys of the owners; none: all.
            names: Whether to name what cannot be saved.
        """
        known, num_bytes, state = known_ids(trainer), 0, State()
        for owner in owners(trainer):
            if keys and owner.key not in keys:
                continue
            start, changed = self._start.get(owner.key), self._changed.setdefault(owner.key, set())
            if start is None:
                continue
            for name, value in _attributes(owner):
                if name not in changed and start.get(name) == fingerprint(value, known):
                    continue
                changed.add(name)
                plain, reason = _plain(owner, value, MAX_BYTES - num_bytes)
                if not reason:
                    num_bytes += size_of(plain)
                    state.setdefault(owner.key, {})[name] = plain
                elif names and not owner.is_saved:
                    name_inexact(f"{owner.name}.{name}", f"this attribute {reason}. {owner.remedy}.")
        return state

    def load_state_dict(self, trainer: Trainer, state: State) -> None:
        """Restore what `state_dict` returned."""
        device = trainer.strategy.root_device
        for owner in owners(trainer):
            for name, plain in state.get(owner.key, {}).items():
                if name in owner.excluded:
                    continue
                self._changed.setdefault(owner.key, set()).add(name)
                restored = from_plain(plain, device)
                if not set_in_place(owner.values.get(name), restored):
                    owner.values[name] = restored


def _attributes(owner: Owner) -> Iterator[tuple[str, Any]]:
    for name, value in list(owner.values.items()):
        ignored = name in owner.excluded or name.startswith("_hparams") or isinstance(value, FunctionType)
        if is_iterator(value) or not (ignored or is_constant(value) or isinstance(value, (LightningModule, Dataset))):
            yield name, value


def _plain(owner: Owner, value: Any, max_bytes: int) -> tuple[Any, str]:
    """Return the converted value, or why it cannot be saved."""
    if is_iterator(value):
        return None, "is an iterator, whose position cannot be saved"
    if not owner.restores:
        return None, "changed, and a resumed run does not have the change"
    try:
        plain = to_plain(value)
    except NotPlainError as error:
        return None, f"changed and holds an object of class {error}, which cannot be saved"
    if size_of(plain) > max_bytes:
        return None, f"changed, and the saved attributes take {MAX_BYTES // 2**20} MB at most"
    return plain, ""
