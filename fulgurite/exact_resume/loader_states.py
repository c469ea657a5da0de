"""Save and restore what data sets and samplers keep, and what a data module made its loaders from."""

from __future__ import annotations

import random
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import Dataset

from fulgurite.compat.lightning import prefetched_batches, train_loaders
from fulgurite.compat.lightning_loaders import reload_epochs, set_reload_epochs, set_up_validation
from fulgurite.dataloading.patch import each_loader
from fulgurite.exact_resume.objects.generator_states import GENERATORS
from fulgurite.exact_resume.order.rng import restore_rng_states, rng_states
from fulgurite.exact_resume.user_state.attributes import Attributes, State
from fulgurite.exact_resume.user_state.loader_owners import (
    LOADERS,
    TRAINING,
    VALIDATION,
    Owner,
    owners_of,
    owners_of_kind,
)

SHARED = (Dataset, torch.nn.Module, LightningModule, LightningDataModule, Trainer, *GENERATORS)  # never copied
DATA_KEYS = ("data", "data hparams", "model hparams")  # keys of what a data module makes its loaders from


class LoaderStates:
    """The states that the loaders of a run depend on.

    A sampler may change while it is iterated. A resumed run gives it the state that it had at the start of the pass,
    skips the batches trained on, and then gives it the state that it had when the run was saved.

    Args:
        attributes: Attributes of the run; None: they are not saved.
    """

    def __init__(self, attributes: Attributes | None) -> None:
        self._attributes = attributes
        self._trainer: Trainer | None = None
        self._calls: dict[str, dict[str, Any]] = {}  # what the loaders of a kind were made from
        self._loaded: dict[str, Any] = {}
        self._restored: State = {}  # attributes that the checkpoint restores
        self._made: State = {}  # values of these attributes when a resumed run made its loaders
        self._kept: list[tuple[MutableMapping[str, Any], dict[str, Any]]] = []  # values of the position, in a replay

    # loader methods of the data module

    def is_made(self, kind: str) -> bool:
        """Return whether loaders of a kind were made in this process."""
        return kind in self._calls

    @contextmanager
    def making(self, trainer: Trainer, kind: str) -> Iterator[None]:
        """Restore what the interrupted run made its loaders from while loaders are made, and note it."""
        self._trainer = trainer
        saved, before = self._loaded.get("calls", {}).pop(kind, None), rng_states()
        if saved is not None:
            if self._attributes is not None:
                self._attributes.load_state_dict(trainer, saved["objects"])
            restore_rng_states({**before, **saved["generators"]})
        call: dict[str, Any] = {"objects": {}, "generators": {}}
        if self._attributes is not None:
            call["objects"] = self._attributes.state_dict(trainer, DATA_KEYS, names=False)
        states, position = rng_states(), _rng_position()
        yield
        if position != _rng_position():
            call["generators"] = {name: states[name] for name in ("python", "numpy", "torch")}
        self._calls[kind] = call
        if saved is not None:
            restore_rng_states(before)

    def made(self, trainer: Trainer, kind: str, loaders: Any) -> None:
        """Take the values of new data sets and samplers as those of the start."""
        present = vars(trainer).setdefault(LOADERS, {})
        former = {owner.key: owner.values for owner in owners_of_kind(present.get(kind, []), kind)}
        present[kind] = list(each_loader(loaders))
        if self._attributes is None:
            return
        owners = list(owners_of_kind(present[kind], kind))
        self._attributes.forget({owner.key for owner in owners if former.get(owner.key) is not owner.values})
        self._attributes.remember(trainer)
        for owner in owners:
            names = self._restored.get(owner.key, {}).keys() & owner.values.keys()
            self._made[owner.key] = {name: _copy(owner.values[name]) for name in names}

    def start(self, trainer: Trainer) -> None:
        """Make the validation loaders that the interrupted run had, and count reloads as it did."""
        if VALIDATION in self._loaded.get("calls", {}):
            set_up_validation(trainer)
        if "reloads" in self._loaded:
            set_reload_epochs(trainer, self._loaded["reloads"])

    # passes of a training loader

    def num_ahead(self) -> int:
        """Return the number of batches that were fetched and not trained on yet."""
        return 0 if self._trainer is None else prefetched_batches(self._trainer)

    def at_start(self, loader: Any) -> State:
        """Return what changed in a loader's samplers and data sets until the start of a pass."""
        if self._attributes is None or self._trainer is None:
            return {}
        keys = tuple(owner.key for owner in self._owners_of(loader))
        return self._attributes.state_dict(self._trainer, keys, names=False)

    def enter(self, loader: Any, state: State) -> None:
        """Give a loader's samplers and data sets the state that they had when the interrupted pass began."""
        if self._attributes is None or self._trainer is None:
            return
        for owner in self._owners_of(loader):
            made = self._made.pop(owner.key, {})
            self._kept.append((owner.values, {name: owner.values[name] for name in made if name in owner.values}))
            owner.values.update(made)
        self._attributes.load_state_dict(self._trainer, state)

    def settle(self) -> None:
        """Give the samplers and data sets the state that they had when the run was saved."""
        for values, kept in self._kept:
            values.update(kept)
        self._kept = []

    def _owners_of(self, loader: Any) -> list[Owner]:
        loaders = [] if self._trainer is None else train_loaders(self._trainer)
        numbers = [number for number, each in enumerate(loaders) if each is loader]
        return [owner for number in numbers for owner in owners_of(loader, f"{TRAINING} {number}")]

    # state

    def state_dict(self, trainer: Trainer) -> dict[str, Any]:
        """Return what the loaders of a run were made from."""
        return {"calls": self._calls, "reloads": reload_epochs(trainer)}

    def load_state_dict(self, state: dict[str, Any], attributes: State) -> None:
        """Keep a state until the loaders are made.

        Args:
            state: What `state_dict` returned.
            attributes: The attributes that the checkpoint restores.
        """
        self._loaded, self._restored = {**state, "calls": dict(state.get("calls", {}))}, attributes


def _copy(value: Any) -> Any:
    """Return a copy that shares data sets, modules and generators; the value itself if it has no copy."""
    if isinstance(value, SHARED):
        return value
    try:
        return deepcopy(value)
    except Exception:  # noqa: BLE001 - a lock, a file: classes of users raise anything
        return value


def _rng_position() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002 - the generator that code of users draws from
    return random.getstate(), state[1].tobytes(), state[2:], torch.get_rng_state().numpy().tobytes()
