"""Changes that a run makes to the loaders of every data module, with no code in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

METHODS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")


def change_loaders(datamodule: LightningDataModule, change: Callable[[DataLoader[Any]], None], mark: str) -> None:
    """Have every loader that a data module hands out changed first; a second call with the same mark does nothing.

    Args:
        datamodule: Gets those of its loader methods that it has replaced on the object; its class stays as it is.
        change: Takes one loader.
        mark: Attribute that tells a method that was wrapped for this change.
    """
    for name in METHODS:
        # Lightning asks whether a method is there by looking whether it is overridden
        if is_overridden(name, datamodule, LightningDataModule) and not hasattr(getattr(datamodule, name), mark):
            vars(datamodule)[name] = _changed(getattr(datamodule, name), change, mark)


def each_loader(loaders: Any) -> Iterator[DataLoader[Any]]:
    """Yield the loaders in what a loader method returned: one, or a nest of dictionaries, lists and tuples."""
    if isinstance(loaders, DataLoader):
        yield loaders
    elif isinstance(loaders, CombinedLoader):
        yield from each_loader(loaders.flattened)
    elif isinstance(loaders, dict):
        yield from each_loader(list(loaders.values()))
    elif isinstance(loaders, (list, tuple)):
        for part in loaders:
            yield from each_loader(part)


def _changed(make: Callable[[], Any], change: Callable[[DataLoader[Any]], None], mark: str) -> Callable[[], Any]:
    @wraps(make)
    def make_changed() -> Any:
        loaders = make()
        for loader in each_loader(loaders):
            change(loader)
        return loaders

    setattr(make_changed, mark, True)
    return make_changed
