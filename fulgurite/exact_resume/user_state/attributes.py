"""Save and restore state that user code keeps in plain attributes, and name what cannot be saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from torch.utils.data import Dataset, Sampler
from torchmetrics import Metric, MetricCollection

from fulgurite.compat.lightning import train_loaders
from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.user_state.plain_values import (
    NotPlainError,
    fingerprint,
    from_plain,
    is_constant,
    set_in_place,
    size_of,
    to_plain,
)

MAX_BYTES = 8 * 2**20  # of all attributes of a rank
SAVED_BY_OWNER = {"_internal_optimizer_metadata", "_restarting"}  # BaseFinetuning's state_dict

State = dict[str, dict[str, Any]]  # converted values by owner and name


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


def owners(trainer: Trainer) -> Iterator[Owner]:
    """Yield the objects of a trainer whose attributes user code may change."""
    model: LightningModule = trainer.lightning_module
    yield from _of_model(model)
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None:
        saves = _overrides(datamodule, LightningDataModule, ("state_dict",))
        remedy = "Save it in state_dict and load_state_dict of the data module"
        base = frozenset(vars(LightningDataModule()))
        yield Owner("data", type(datamodule).__name__, vars(datamodule), base, remedy, saves)
    counts: dict[str, int] = {}
    for callback in vars(trainer)["callbacks"]:
        kind = type(callback).__qualname__
        counts[kind] = number = counts.get(kind, 0) + 1
        if _is_library(type(callback)) and not isinstance(callback, BaseFinetuning):
            continue
        saves = _overrides(callback, Callback, ("state_dict", "on_save_checkpoint"))
        remedy = "Save it in state_dict and load_state_dict of the callback"
        yield Owner(f"callback {kind} {number}", kind, vars(callback), _library_names(type(callback)), remedy, saves)
    for number, optimizer in enumerate(trainer.optimizers):
        if not type(optimizer).__module__.startswith("torch."):
            base = frozenset(vars(torch.optim.SGD([torch.zeros(1)])))
            remedy = "Save it in state_dict and load_state_dict of the optimizer"
            saves = _overrides(optimizer, torch.optim.Optimizer, ("state_dict",))
            yield Owner(f"optimizer {number}", type(optimizer).__name__, vars(optimizer), base, remedy, saves)
    yield from _of_loaders(trainer)


def _of_model(model: LightningModule) -> Iterator[Owner]:
    base = frozenset(vars(LightningModule())) | {"_results", "_fabric"}
    saves = _overrides(model, LightningModule, ("on_save_checkpoint", "state_dict"))
    remedy = "Make it a tensor with register_buffer, or save it in on_save_checkpoint of the model"
    for path, module in model.named_modules():
        if isinstance(module, (Metric, MetricCollection)) or _is_in_metric(model, path):
            continue
        key, name = f"model.{path}" if path else "model", type(module).__name__
        # pruning and weight_norm compute `weight` from parameters `weight_orig`, `weight_g`
        computed = {name.rpartition("_")[0] or name for name, _ in module.named_parameters(recurse=False)}
        computed |= {name for name, _ in module.named_parameters(recurse=False)}
        yield Owner(key, name, vars(module), base | computed, remedy, saves)
        if buffers := {n: b for n, b in module.named_buffers(recurse=False) if n not in module.state_dict()}:
            yield Owner(f"{key} buffers", name, _Buffers(module, buffers), frozenset(), "Let register_buffer save it")
    if (hparams := getattr(model, "hparams", None)) is not None:
        yield Owner("model hparams", type(model).__name__, hparams, frozenset(), remedy, is_saved=True)


def _of_loaders(trainer: Trainer) -> Iterator[Owner]:
    for number, loader in enumerate(train_loaders(trainer)):
        found = list(_datasets(getattr(loader, "dataset", None)))
        for position, dataset in enumerate(found):
            remedy = "Make it a function of the index and the epoch, or set it from the data module"
            yield Owner(
                f"data set {number}.{position}", type(dataset).__name__, vars(dataset), frozenset(), remedy, False
            )
        for sampler in _samplers(loader):
            names = frozenset({"generator", "epoch", "data_source"})
            remedy = "Set it from the epoch in on_train_epoch_start, and save between epochs only"
            yield Owner(f"sampler {number}", type(sampler).__name__, vars(sampler), names, remedy, False, False)


def _datasets(dataset: Any, depth: int = 5) -> Iterator[Any]:
    """Yield the data set of the user, and those inside it."""
    if dataset is None or depth == 0 or not hasattr(dataset, "__dict__"):
        return
    if type(dataset).__module__.startswith("fulgurite."):
        yield from _datasets(vars(dataset).get("_wrapped"), depth)
        return
    yield dataset
    inner = vars(dataset).get("dataset", vars(dataset).get("datasets"))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, Dataset):
            yield from _datasets(each, depth - 1)


def _samplers(loader: Any) -> Iterator[Any]:
    found = getattr(loader, "sampler", None)
    while type(found).__module__.startswith("fulgurite."):
        found = vars(found).get("sampler")
    if isinstance(found, Sampler):
        yield found


class _Buffers(dict[str, Any]):
    """The buffers of a module that its state_dict leaves out."""

    def __init__(self, module: torch.nn.Module, buffers: dict[str, Any]) -> None:
        super().__init__(buffers)
        self._module = module

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


def _attributes(owner: Owner) -> Iterator[tuple[str, Any]]:
    for name, value in list(owner.values.items()):
        ignored = name in owner.excluded or name.startswith("_hparams") or isinstance(value, FunctionType)
        if not ignored and not is_constant(value) and not isinstance(value, (LightningModule, Dataset)):
            yield name, value


def _plain(owner: Owner, value: Any, max_bytes: int) -> tuple[Any, str]:
    """Return the converted value, or why it cannot be saved."""
    if not owner.restores:
        return None, "changed, and the order of the epoch may have been drawn before"
    try:
        plain = to_plain(value)
    except NotPlainError as error:
        return None, f"changed and holds an object of class {error}, which cannot be saved"
    if size_of(plain) > max_bytes:
        return None, f"changed, and the saved attributes take {MAX_BYTES // 2**20} MB at most"
    return plain, ""


def known_ids(trainer: Trainer) -> set[int]:
    """Return the ids of the objects that a checkpoint saves, or that hold no state."""
    model: LightningModule = trainer.lightning_module
    saved: Iterable[Any] = [*model.modules(), *model.parameters(), *model.buffers()]
    parts = [trainer, getattr(trainer, "datamodule", None), *vars(trainer)["callbacks"], *trainer.optimizers]
    return {id(each) for each in [*saved, *parts] if each is not None}


def _overrides(value: Any, base: type, names: tuple[str, ...]) -> bool:
    return any(getattr(type(value), name, None) is not getattr(base, name, None) for name in names)


def _is_library(kind: type) -> bool:
    return kind.__module__.startswith(("lightning.", "fulgurite.", "pytorch_lightning."))


def _is_in_metric(model: LightningModule, path: str) -> bool:
    parts = path.split(".")[:-1]
    above = (model.get_submodule(".".join(parts[: end + 1])) for end in range(len(parts)))
    return any(isinstance(module, (Metric, MetricCollection)) for module in above)


def _library_names(kind: type) -> frozenset[str]:
    """Return the attributes that a callback inherits from the library's or Lightning's classes."""
    if issubclass(kind, BaseFinetuning):
        return frozenset(SAVED_BY_OWNER)
    names: set[str] = set()
    for base in kind.__mro__:
        if _is_library(base) and base is not Callback:
            names.update(*(f.__code__.co_names for f in vars(base).values() if isinstance(f, FunctionType)))
    return frozenset(names)
