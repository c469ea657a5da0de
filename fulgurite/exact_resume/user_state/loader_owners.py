"""Find the data sets and samplers of loaders, whose attributes user code may change."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import Dataset, Sampler

from fulgurite.compat.lightning import train_loaders
from fulgurite.exact_resume.order.generators import find_generators
from fulgurite.exact_resume.user_state.plain_values import ATOMS


@dataclass
class Owner:
    """An object with attributes.

    Args:
        key: Its key in checkpoints.
        name: Its class, for messages.
        values: Its attributes, which are written too.
        excluded: Names that Lightning or torch manage.
        remedy: What to write so that an object in an attribute is saved.
        is_saved: Whether a hook of the user saves what this module cannot.
        restores: Whether values can be restored; otherwise every change is named.
    """

    key: str
    name: str
    values: MutableMapping[str, Any]
    excluded: frozenset[str]
    remedy: str
    is_saved: bool = False
    restores: bool = True


def loader_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the data sets and samplers of a trainer's train loaders."""
    for number, loader in enumerate(train_loaders(trainer)):
        found = list(datasets_of(loader))
        for position, dataset in enumerate(found):
            remedy = "Make it a function of the index and the epoch, or set it from the data module"
            yield Owner(
                f"data set {number}.{position}", type(dataset).__name__, vars(dataset), frozenset(), remedy, False
            )
        for sampler in _samplers(loader):
            # what is plain in samplers of one's own is part of an exact loader's state
            restored = frozenset(
                name for name, value in vars(sampler).items() if type(value) in ATOMS and _restores_samplers(loader)
            )
            names = frozenset({"generator", "epoch", "data_source"}) | restored
            remedy = "Set it from the epoch in on_train_epoch_start, and save between epochs only"
            yield Owner(f"sampler {number}", type(sampler).__name__, vars(sampler), names, remedy, False, False)


def _restores_samplers(loader: Any) -> bool:
    return hasattr(getattr(loader, "order", None), "loaded_attributes")


def datasets_of(loader: Any) -> Iterator[Any]:
    """Yield the user's data sets of a loader, also those inside a Subset or a ConcatDataset."""
    yield from _nested(getattr(loader, "dataset", None))


def _nested(dataset: Any, depth: int = 5) -> Iterator[Any]:
    """Yield the data set of the user, and those inside it."""
    if dataset is None or depth == 0 or not hasattr(dataset, "__dict__"):
        return
    if type(dataset).__module__.startswith("fulgurite."):
        yield from _nested(vars(dataset).get("_wrapped"), depth)
        return
    yield dataset
    inner = vars(dataset).get("dataset", vars(dataset).get("datasets"))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, Dataset):
            yield from _nested(each, depth - 1)


def _samplers(loader: Any) -> Iterator[Any]:
    found = getattr(loader, "sampler", None)
    while type(found).__module__.startswith("fulgurite."):
        found = vars(found).get("sampler")
    if isinstance(found, Sampler):
        yield found


def seeded_generators(trainer: Trainer) -> Iterator[Any]:
    """Yield the generators in data sets and samplers that an exact loader seeds for each batch or pass."""
    for loader in train_loaders(trainer):
        if type(loader).__module__.startswith("fulgurite."):
            yield from find_generators(loader.dataset, loader.collate_fn, *_samplers(loader))
