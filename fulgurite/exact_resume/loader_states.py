"""Save and restore what data sets and samplers keep, and what a data module made its loaders from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from torch.utils._pytree import tree_flatten

from fulgurite.compat.lightning import prefetched_batches, train_loaders
from fulgurite.compat.lightning_loaders import (
    at_progress,
    forget_validation,
    reload_epochs,
    set_reload_epochs,
    set_up_validation,
)
from fulgurite.core.exactness import name_inexact
from fulgurite.dataloading.patch import each_loader
from fulgurite.exact_resume.inspection.splits import digest_of_splits
from fulgurite.exact_resume.objects.encoding import is_same
from fulgurite.exact_resume.order.rng import restore_rng_states, rng_positions, rng_states
from fulgurite.exact_resume.user_state.attributes import Attributes, State
from fulgurite.exact_resume.user_state.loader_owners import (
    LOADERS,
    TRAINING,
    VALIDATION,
    Owner,
    is_wrapper,
    owners_of,
    owners_of_kind,
)

DATA_KEYS = ("data", "data hparams", "model hparams")  # keys of what a data module makes its loaders from


class LoaderStates:
    """The states that the loaders of a run depend on.

    A sampler may change while it is iterated. A resumed run gives it the state that it had at the start of the pass,
    skips the batches trained on, and then gives it the state that it had when the run was saved.
    """

    def __init__(self, attributes: Attributes | None) -> None:
        self._attributes = attributes  # None: they are not saved
        self._trainer: Trainer | None = None
        self._calls: dict[str, dict[str, Any]] = {}  # what the loaders of a kind were made from
        self._loaded: dict[str, Any] = {}
        self._saved_kinds: set[str] = set()  # of loaders that the interrupted run had
        self._splits: dict[str, int] = {}  # of the loaders of a kind, when they were made
        self._restored: State = {}  # attributes that the checkpoint restores
        self._restored_with: dict[int, Any] = {}  # loader that an object of several was restored with
        self._made: State = {}  # what these attributes were when a resumed run made its loaders

    # loader methods of the data module

    def is_made(self, kind: str) -> bool:
        """Return whether loaders of a kind were made in this process."""
        return kind in self._calls

    @contextmanager
    def making(self, trainer: Trainer, kind: str) -> Iterator[None]:
        """Restore what the interrupted run made its loaders from while loaders are made, and note it."""
        self._trainer = trainer
        saved, before = self._loaded.get("calls", {}).pop(kind, None), rng_states()
        present = State()
        if saved is not None:
            if self._attributes is not None:
                present = self._attributes.state_of(trainer, DATA_KEYS, saved["objects"])
                self._attributes.load_state_dict(trainer, saved["objects"])
            restore_rng_states({**before, **saved["generators"]})
        progress = (saved or {}).get("progress", [trainer.current_epoch, trainer.global_step])
        call: dict[str, Any] = {"objects": {}, "generators": {}, "progress": progress}
        if self._attributes is not None:
            call["objects"] = self._attributes.state_dict(trainer, DATA_KEYS, names=False)
        states, position = rng_states(), rng_positions()
        with at_progress(trainer, *progress):
            yield
        if position != rng_positions():
            call["generators"] = {name: states[name] for name in ("python", "numpy", "torch")}
        self._calls[kind] = call
        if saved is not None:
            restore_rng_states(before)
            if self._attributes is not None and kind == VALIDATION:  # the training loaders may read the same objects
                self._attributes.load_state_dict(trainer, present)

    def made(self, trainer: Trainer, kind: str, loaders: Any) -> None:
        """Take the values of new data sets and samplers as those of the start."""
        present = vars(trainer).setdefault(LOADERS, {})
        former = {owner.key: owner.holder for owner in owners_of_kind(present.get(kind, []), kind)}
        present[kind] = list(each_loader(loaders))
        if kind == VALIDATION:  # the position of another training loader is that of a stream
            present[kind] += filter(is_wrapper, tree_flatten(loaders)[0])
        self._compare_splits(kind, digest_of_splits(present[kind]))
        if self._attributes is None:
            return
        owners = list(owners_of_kind(present[kind], kind))
        self._attributes.forget({owner.key for owner in owners if former.get(owner.key) is not owner.holder})
        self._attributes.remember(trainer)
        if keys := tuple(owner.key for owner in owners if owner.key in self._restored):
            self._made |= self._attributes.state_of(trainer, keys, self._restored)

    def _compare_splits(self, kind: str, digest: int) -> None:
        """Name a split of the data that is not that of the interrupted run."""
        saved = self._loaded.get("splits", {}).pop(kind, digest)
        if saved != digest:
            name_inexact(
                f"data.{'train' if kind == TRAINING else 'val'}_dataloader",
                "the data is split otherwise than in the interrupted run, so examples that it trained on may be "
                "validated on now. Draw the split with a seed, e.g. random_split(..., generator=...).",
            )
        self._splits[kind] = digest

    def start(self, trainer: Trainer) -> None:
        """Make the validation loaders that the interrupted run had, and count reloads as it did."""
        if VALIDATION in self._loaded.get("calls", {}):
            set_up_validation(trainer)
        elif self.is_made(VALIDATION) and VALIDATION not in self._saved_kinds:
            forget_validation(trainer)  # a learning rate finder had thrown them away
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
        self._restore(loader, self._made)
        self._restore(loader, state)

    def settle(self, loader: Any) -> None:
        """Give the samplers and data sets the state that they had when the run was saved."""
        self._restore(loader, self._restored)

    def _restore(self, loader: Any, state: State) -> None:
        """Restore what is not so already: the iterator of a container fails where the container is filled again."""
        if self._attributes is not None and self._trainer is not None:
            owners = [owner for owner in self._owners_of(loader) if owner.key in state]
            # what several loaders share is restored with the first one, which fetched a batch by then
            keys = tuple(o.key for o in owners if self._restored_with.setdefault(id(o.holder), loader) is loader)
            present = self._attributes.state_of(self._trainer, keys, state)
            changed = {key: _differing(state[key], present.get(key, {})) for key in keys}
            self._attributes.load_state_dict(self._trainer, changed)

    def _owners_of(self, loader: Any) -> list[Owner]:
        loaders = [] if self._trainer is None else train_loaders(self._trainer)
        numbers = [number for number, each in enumerate(loaders) if each is loader]
        return [owner for number in numbers for owner in owners_of(loader, f"{TRAINING} {number}")]

    # state

    def state_dict(self, trainer: Trainer) -> dict[str, Any]:
        """Return what the loaders of a run were made from."""
        has_validation = trainer.val_dataloaders is not None
        calls = {kind: call for kind, call in self._calls.items() if kind == TRAINING or has_validation}
        return {"calls": calls, "reloads": reload_epochs(trainer), "splits": self._splits}

    def load_state_dict(self, state: dict[str, Any], attributes: State) -> None:
        """Keep a state, and the attributes that the checkpoint restores, until the loaders are made."""
        copied = {name: dict(state.get(name, {})) for name in ("calls", "splits")}
        self._loaded, self._restored = {**state, **copied}, attributes
        self._saved_kinds = set(copied["calls"])


def _differing(state: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    return {name: plain for name, plain in state.items() if not is_same(plain, present.get(name))}
