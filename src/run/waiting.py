"""A limit on waiting for a batch, for the loaders of every data module: a worker that hangs must not hold a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
MARK = "waits_no_longer_than"  # on a loader method that was wrapped


class LimitWaiting(Callback):
    """Puts the limit on a run's loaders, in the process that uses them, which may be a spawned one.

    Args:
        seconds: Without a batch, after which a loader with workers gives up; 0 waits for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the loader methods of the data module."""
        if (datamodule := getattr(trainer, "datamodule", None)) is not None:
            limit_waiting(datamodule, self.seconds)


def limit_waiting(datamodule: LightningDataModule, seconds: float) -> None:
    """Have every loader with workers that a data module hands out give up on a batch after so many seconds.

    A limit that a loader has of its own stays.

    Args:
        datamodule: Gets those of its loader methods that it has replaced on the object; its class stays as it is.
        seconds: 0 waits for ever.
    """
    for name in LOADERS if seconds > 0 else ():
        # Lightning asks whether a method is there by looking whether it is overridden
        if is_overridden(name, datamodule, LightningDataModule) and not hasattr(getattr(datamodule, name), MARK):
            vars(datamodule)[name] = _limited(getattr(datamodule, name), seconds)


def _limited(make: Callable[[], Any], seconds: float) -> Callable[[], Any]:
    @wraps(make)
    def loaders() -> Any:
        made = make()
        for loader in _each(made):
            if loader.num_workers > 0 and not loader.timeout:
                loader.timeout = seconds
        return made

    setattr(loaders, MARK, seconds)
    return loaders


def _each(loaders: Any) -> Iterator[DataLoader[Any]]:
    if isinstance(loaders, DataLoader):
        yield loaders
    elif isinstance(loaders, CombinedLoader):
        yield from _each(loaders.flattened)
    elif isinstance(loaders, dict):
        yield from _each(list(loaders.values()))
    elif isinstance(loaders, (list, tuple)):
        for part in loaders:
            yield from _each(part)
