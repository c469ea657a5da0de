"""Find the data sets, samplers and collate functions of loaders, whose attributes user code may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import MethodType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset, Sampler

from fulgurite.exact_resume.order.collate import COLLATE_REMEDY, FIRST, collate_setting
from fulgurite.exact_resume.used_code.kept_values import Linked
from fulgurite.exact_resume.values.kinds import is_users, parts_of, set_part

LOADERS = "_fulgurite_loaders"  # attribute of the trainer: the loaders of a run by kind
TRAINING, VALIDATION = "loader", "validation loader"  # kinds
LIGHTNING = "__pl_"  # attributes in which Lightning keeps the arguments of a batch sampler
UNSAVED = "changed, and a resumed run does not have the change"  # of an owner that does not restore
MAX_DEPTH, MAX_ITEMS = 4, 64  # a batch sampler -> a list of samplers -> a sampler


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
        holder: The object itself, of a loader's.
        has_fixed_items: Whether values are tuples of which only items that were there at the start are saved.
    """

    key: str
    name: str
    values: MutableMapping[str, Any]
    excluded: frozenset[str]
    remedy: str
    is_saved: bool = False
    restores: bool = True
    holder: Any = None
    has_fixed_items: bool = False


def loader_owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the data sets and samplers of a trainer's loaders."""
    for kind, loaders in sorted(vars(trainer).get(LOADERS, {}).items()):
        yield from owners_of_kind(loaders, kind)


def owners_of_kind(loaders: Iterable[Any], kind: str) -> Iterator[Owner]:
    """Yield the owners of the loaders of a kind, in their order."""
    for number, loader in enumerate(loaders):
        yield from owners_of(loader, f"{kind} {number}")


def owners_of(loader: Any, place: str) -> Iterator[Owner]:
    """Yield the data sets, the samplers and the collate function of a loader. `place` is its kind and number."""
    remedy = "Make it a function of the index and the epoch, or set it from the data module"
    if (dataset := next(datasets_of(loader), None)) is not None:
        values = _values_of(dataset)
        yield Owner(f"{place} data set", type(dataset).__name__, values, frozenset(), remedy, holder=dataset)
    remedy = "Make it a function of the epoch that set_epoch sets"
    for path, sampler in samplers_of(loader):
        # data sets and samplers have keys of their own, and Lightning sets the epoch
        excluded = {"data_source", "dataset", *(["epoch"] if hasattr(sampler, "set_epoch") else [])}
        excluded |= {
            attribute
            for attribute, value in vars(sampler).items()
            if attribute.startswith(LIGHTNING) or _holds_samplers(value)
        }
        name = type(sampler).__name__
        yield Owner(f"{place} {path}", name, vars(sampler), frozenset(excluded), remedy, holder=sampler)
    if is_wrapper(loader):
        values = _values_of(loader)
        yield Owner(f"{place} itself", type(loader).__name__, values, frozenset(), remedy, holder=loader)
    collate = collate_of(loader)
    holder = collate.__self__ if isinstance(collate, MethodType) else collate
    # data sets and what Lightning calls have keys of their own
    if not isinstance(holder, (LightningDataModule, LightningModule, Dataset, type)) and (held := _values_of(holder)):
        name = getattr(holder, "__qualname__", type(holder).__qualname__)
        remedy = "Keep it in an attribute of the data module"
        yield Owner(f"{place} collate_fn", name, held, frozenset(), remedy, holder=holder)
    if _is_ours(loader) or FIRST in getattr(loader, "__dict__", {}):
        yield Owner(f"{place} settings", "DataLoader", collate_setting(loader, collate), frozenset(), COLLATE_REMEDY)


def is_wrapper(loader: Any) -> bool:
    """Return whether a loader is of a class of the user that is no DataLoader, such as one that prefetches."""
    return not isinstance(loader, DataLoader) and is_users(type(loader).__module__) and hasattr(loader, "__dict__")


def _values_of(holder: Any) -> MutableMapping[str, Any]:
    """Return what an object holds: its attributes, also those in slots, or the items of a container."""
    if isinstance(holder, (list, dict, torch.Tensor, np.ndarray)):
        return {"items": holder}  # a container is restored in place
    values, parts = getattr(holder, "__dict__", {}), parts_of(holder)
    return values if values.keys() >= parts.keys() else Linked(parts, partial(set_part, holder))


def collate_of(loader: Any) -> Any:
    """Return the collate function that the user gave to a loader."""
    if _is_ours(loader):
        return collate_of(vars(loader)["_wrapped"])
    return getattr(loader, "__dict__", {}).get(FIRST, getattr(loader, "collate_fn", None))


def _is_ours(value: Any) -> bool:
    """Return whether an object stands for one of the user's."""
    return type(value).__module__.startswith("fulgurite.exact_resume.")


def datasets_of(loader: Any) -> Iterator[Any]:
    """Yield the user's data sets of a loader, also those inside a Subset or a ConcatDataset."""
    yield from _nested(getattr(loader, "dataset", None))


def _nested(dataset: Any, depth: int = 5) -> Iterator[Any]:
    """Yield the data set of the user, and those inside it."""
    if dataset is None or depth == 0:
        return
    if type(dataset).__module__.startswith("fulgurite."):
        yield from _nested(vars(dataset).get("_wrapped"), depth)
        return
    yield dataset
    for each in _inside(dataset):
        yield from _nested(each, depth - 1)


def _inside(dataset: Any) -> Iterator[Any]:
    values = getattr(dataset, "__dict__", {})
    inner = values.get("dataset", values.get("datasets"))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, Dataset):
            yield each


def samplers_of(loader: Any) -> Iterator[tuple[str, Any]]:
    """Yield the samplers of a loader of whatever class, also those inside other samplers, and their paths."""
    seen: set[int] = set()
    for name in ("batch_sampler", "sampler"):
        yield from _samplers_in(getattr(loader, name, None), name, MAX_DEPTH, seen)


def _samplers_in(value: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    while _is_ours(value):
        inner = vars(value)
        value = inner.get("_wrapped", inner.get("own", inner.get("sampler")))
    if value is None or id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple, dict)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in list(parts)[:MAX_ITEMS]:
            yield from _samplers_in(part, f"{path}[{key!r}]", depth - 1, seen)
    elif is_sampler(value) or (depth == MAX_DEPTH and hasattr(value, "__dict__")):
        yield path, value
        for name, part in list(vars(value).items()):
            if name.startswith(LIGHTNING):
                continue
            yield from _samplers_in(part, f"{path}.{name}", depth - 1, seen)


def _holds_samplers(value: Any) -> bool:
    """Return whether a value is a sampler, or a short container of samplers."""
    if isinstance(value, (list, tuple, dict)) and len(value) <= MAX_ITEMS:
        return any(map(is_sampler, value.values() if isinstance(value, dict) else value))
    return is_sampler(value)


def is_sampler(value: Any) -> bool:
    """Return whether an object yields indices: a sampler of torch, or an iterable of a class of the user."""
    if isinstance(value, Sampler):
        return True
    if isinstance(value, (torch.Tensor, torch.nn.Module, Dataset, type)) or not hasattr(type(value), "__iter__"):
        return False
    return hasattr(value, "__dict__") and is_users(type(value).__module__)


def all_loaders(trainer: Trainer) -> Iterator[Any]:
    """Yield the loaders that a trainer reads, and the user's loaders that they stand for."""
    for loader in chain.from_iterable(vars(trainer).get(LOADERS, {}).values()):
        yield from (loader, vars(loader).get("_wrapped") if hasattr(loader, "__dict__") else None)
