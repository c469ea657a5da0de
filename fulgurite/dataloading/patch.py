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
Wrap = Callable[[Callable[[], Any]], Any]  # gets a loader method, and returns the loaders
METHODS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")


def wrap_method(datamodule: LightningDataModule, name: str, wrap: Wrap, mark: str) -> None:
    """Call a function in place of a loader method of a data module from now on.

    Replaces the method of the object, not of its class. A method that was replaced under the same `mark`, for an
    earlier trainer, is not replaced again: it calls the new function.
    """
    make = getattr(datamodule, name)
    current: list[Wrap] = getattr(make, mark, [])
    current[:] = [wrap]
    if hasattr(make, mark):
        return

    @wraps(make)  # methods wrapped around this one get the attribute too
    def make_wrapped() -> Any:
        return current[0](make)

    setattr(make_wrapped, mark, current)
    vars(datamodule)[name] = make_wrapped


def patch_loaders(datamodule: LightningDataModule, patch: Patch, mark: str, methods: Iterable[str] = METHODS) -> None:
    """Apply a function to every loader that a data module returns from now on; see `wrap_method`."""

    def make_patched(make: Callable[[], Any]) -> Any:
        loaders = make()
        for loader in each_loader(loaders):
            patch(loader)
        return loaders

    for name in methods:
        # Lightning uses a loader method only if it is overridden
        if is_overridden(name, datamodule, LightningDataModule):
            wrap_method(datamodule, name, make_patched, mark)


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
