"""Wrap the loader methods of a data module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

Patch = Callable[[DataLoader[Any]], None]  # changes a loader in place
METHODS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")


def patch_loaders(datamodule: LightningDataModule, patch: Patch, mark: str, methods: Iterable[str] = METHODS) -> None:
    """Apply a function to every loader that a data module returns from now on.

    Replaces the methods of the object, not of its class. A method that was replaced under the same `mark`, for an
    earlier trainer, is not replaced again: it calls the new function.
    """
    for name in methods:
        # Lightning uses a loader method only if it is overridden
        if not is_overridden(name, datamodule, LightningDataModule):
            continue
        make = getattr(datamodule, name)
        if hasattr(make, mark):
            getattr(make, mark).patch = patch
        else:
            vars(datamodule)[name] = _wrap_method(make, patch, mark)


def each_loader(loaders: Any) -> Iterator[DataLoader[Any]]:
    """Yield the loaders in the return value of a loader method: one, or nested dictionaries, lists and tuples."""
    if isinstance(loaders, DataLoader):
        yield loaders
    elif isinstance(loaders, CombinedLoader):
        yield from each_loader(loaders.flattened)
    elif isinstance(loaders, dict):
        yield from each_loader(list(loaders.values()))
    elif isinstance(loaders, (list, tuple)):
        for item in loaders:
            yield from each_loader(item)


class _Current:
    """The function of the trainer that fits the data module now."""

    def __init__(self, patch: Patch) -> None:
        self.patch = patch


def _wrap_method(make: Callable[[], Any], patch: Patch, mark: str) -> Callable[[], Any]:
    current = _Current(patch)

    @wraps(make)  # methods wrapped around this one get the attribute too
    def make_patched() -> Any:
        loaders = make()
        for loader in each_loader(loaders):
            current.patch(loader)
        return loaders

    setattr(make_patched, mark, current)
    return make_patched
