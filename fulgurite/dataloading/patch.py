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

    Replaces the methods of the object, not of its class, and marks them by the attribute `mark`; a marked one stays.
    """
    for name in methods:
        # Lightning uses a loader method only if it is overridden
        if is_overridden(name, datamodule, LightningDataModule) and not hasattr(getattr(datamodule, name), mark):
            vars(datamodule)[name] = _wrap_method(getattr(datamodule, name), patch, mark)


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


def _wrap_method(make: Callable[[], Any], patch: Patch, mark: str) -> Callable[[], Any]:
    @wraps(make)
    def make_patched() -> Any:
        loaders = make()
        for loader in each_loader(loaders):
            patch(loader)
        return loaders

    setattr(make_patched, mark, True)
    return make_patched
