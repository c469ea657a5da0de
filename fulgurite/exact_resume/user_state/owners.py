"""Find the objects of a run whose attributes user code may change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from types import FunctionType
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, Callback, SpikeDetection
from torchmetrics import Metric, MetricCollection

from fulgurite.compat.buffers import unsaved_buffers
from fulgurite.compat.modules import ModelParts, own_weights, script_attributes
from fulgurite.exact_resume.objects.walk import Known
from fulgurite.exact_resume.structure.model_structure import WEIGHT_HOOKS, hooks_of
from fulgurite.exact_resume.used_code.kept_values import Linked
from fulgurite.exact_resume.user_state.callback_settings import callbacks_by_key
from fulgurite.exact_resume.user_state.loader_owners import Owner, all_loaders, loader_owners
from fulgurite.exact_resume.user_state.optimizer_layout import optimizer_owners
from fulgurite.exact_resume.user_state.shared_owners import shared_owners

# callbacks of Lightning with state that it does not save, and what their state_dict has
WITH_STATE: dict[type, frozenset[str]] = {
    BaseFinetuning: frozenset({"_internal_optimizer_metadata", "_restarting"}),
    SpikeDetection: frozenset({"mode", "warmup", "atol", "rtol", "bad_batches", "exclude_batches_path"}),
}
OF_TORCH = ("_dynamo", "_fsdp")  # how names begin that torch sets on weights


def owners(trainer: Trainer, parts: ModelParts) -> Iterator[Owner]:
    """Yield the objects of a run whose attributes user code may change; first those that passes restore."""
    yield from loader_owners(trainer)
    model: LightningModule = trainer.lightning_module
    yield from _of_model(model, parts)
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None:
        saves = _overrides(datamodule, LightningDataModule, ("state_dict",))
        remedy = "Save it in state_dict and load_state_dict of the data module"
        base = _attributes_of(LightningDataModule)
        yield Owner("data", type(datamodule).__name__, vars(datamodule), base, remedy, saves)
        yield Owner("data hparams", type(datamodule).__name__, datamodule.hparams, frozenset(), remedy, is_saved=True)
    for key, callback in callbacks_by_key(trainer):
        if _is_library(type(callback)) and not isinstance(callback, tuple(WITH_STATE)):
            continue
        saves = _overrides(callback, Callback, ("state_dict", "on_save_checkpoint"))
        remedy = "Save it in state_dict and load_state_dict of the callback"
        name = type(callback).__qualname__
        yield Owner(f"callback {key}", name, vars(callback), _library_names(type(callback)), remedy, saves)
    yield from optimizer_owners(trainer)
    yield from shared_owners(trainer)


def _of_model(model: LightningModule, parts: ModelParts) -> Iterator[Owner]:
    base = _attributes_of(LightningModule) | {"_results", "_fabric"}
    saves = _overrides(model, LightningModule, ("on_save_checkpoint", "state_dict"))
    remedy = "Make it a tensor with register_buffer, or save it in on_save_checkpoint of the model"
    unsaved = _unsaved_buffers(model, parts)
    metrics: tuple[str, ...] = ()  # how the paths of what is in a metric begin; the metric itself comes before
    for path, module in parts.modules:
        key, name = f"model.{path}" if path else "model", type(module).__name__
        if isinstance(module, Metric):
            saved = frozenset(module.metric_state) | _attributes_of(_BareMetric)
            yield Owner(key, name, vars(module), saved, "Make it a state with add_state")
        if isinstance(module, (Metric, MetricCollection)):
            metrics += (f"{path}.",)
            continue
        if path.startswith(metrics):
            continue
        if attributes := script_attributes(module):
            linked = Linked(attributes, partial(setattr, module))
            yield Owner(f"{key} script", name, linked, frozenset(), "Let register_buffer save it")
        # pruning and weight_norm compute `weight` from parameters `weight_orig`, `weight_g`
        parameters = {name for name, _ in own_weights(module)}
        computed = parameters | {name.rpartition("_")[0] for name in parameters}
        yield Owner(key, name, vars(module), base | computed, remedy, saves)
        if unsaved and (
            buffers := {n: buffer for n, buffer in module.named_buffers(recurse=False) if id(buffer) in unsaved}
        ):
            linked = Linked(buffers, partial(setattr, module))
            yield Owner(f"{key} buffers", name, linked, frozenset(), "Let register_buffer save it")
    remedy_of_hooks = "Keep it in an attribute of the model, which is saved"
    hooks = _hooks_in(parts)
    yield Owner("model hooks", type(model).__name__, hooks, frozenset(), remedy_of_hooks, has_fixed_items=True)
    yield Owner("model weights", type(model).__name__, _attributes_of_weights(model, parts), frozenset(), remedy, saves)
    if (hparams := getattr(model, "hparams", None)) is not None:
        yield Owner("model hparams", type(model).__name__, hparams, frozenset(), remedy, is_saved=True)


def _unsaved_buffers(model: LightningModule, parts: ModelParts) -> set[int]:
    """Return the ids of the buffers that the state_dict of a model leaves out."""
    if _overrides(model, LightningModule, ("state_dict",)):
        saved = model.state_dict()
        return {id(buffer) for path, buffer in parts.buffers if path not in saved}
    return {id(buffer) for _, module in parts.modules for buffer in unsaved_buffers(module)}


def _hooks_in(parts: ModelParts) -> dict[str, Any]:
    """Return the functions that are called with modules, parameters or their gradients."""
    found = {f"{path}.{name}": hooks for path, module in parts.modules for name, hooks in hooks_of(module)}
    for name, weight in parts.weights:
        for kind in WEIGHT_HOOKS:
            if hooks := getattr(weight, kind, None):
                found[f"{name}.{kind}"] = tuple(hooks.values())
    return found


def _attributes_of_weights(model: LightningModule, parts: ModelParts) -> Linked:
    """Return what code set on parameters and buffers themselves, by the name of the weight and of the attribute."""

    def write(path: str, value: Any) -> None:
        name, _, attribute = path.rpartition(".")
        present = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        if name in present:
            vars(present[name])[attribute] = value

    found = {
        f"{name}.{attribute}": value
        for name, weight in (*parts.weights, *parts.buffers)
        for attribute, value in vars(weight).items()
        if not attribute.startswith(OF_TORCH)
    }
    return Linked(found, write)


class _BareMetric(Metric):
    """A metric without a state."""

    def update(self) -> None:
        """Do nothing."""

    def compute(self) -> None:
        """Do nothing."""


def known_objects(trainer: Trainer, parts: ModelParts) -> Known:
    """Return the objects that a checkpoint saves, and their names; an empty name: it holds no state."""
    model: LightningModule = trainer.lightning_module
    found: list[tuple[Any, str]] = [(trainer, "trainer"), (getattr(trainer, "datamodule", None), "data")]
    found += [(module, f"model.{path}") for path, module in parts.modules]
    found += [(weight, f"parameter {path}") for path, weight in parts.weights]
    unsaved = _unsaved_buffers(model, parts)
    found += [(buffer, f"buffer {path}") for path, buffer in parts.buffers if id(buffer) not in unsaved]
    found += [(each, f"callback {number}") for number, each in enumerate(vars(trainer)["callbacks"])]
    found += [(each, f"optimizer {number}") for number, each in enumerate(trainer.optimizers)]
    found += [(each.scheduler, f"scheduler {number}") for number, each in enumerate(trainer.lr_scheduler_configs)]
    found += [(getattr(part, "hparams", None), "") for part in (model, getattr(trainer, "datamodule", None))]
    found += [(each, "") for each in all_loaders(trainer)]
    return Known((value, name) for value, name in found if value is not None)


@cache
def _attributes_of(kind: Any) -> frozenset[str]:
    """Return the attributes that the constructor of a class sets."""
    return frozenset(vars(kind()))


def _overrides(value: Any, base: type, names: tuple[str, ...]) -> bool:
    return any(getattr(type(value), name, None) is not getattr(base, name, None) for name in names)


def _is_library(kind: type) -> bool:
    return kind.__module__.startswith(("lightning.", "fulgurite.", "pytorch_lightning."))


def _library_names(kind: type) -> frozenset[str]:
    """Return the attributes that a callback inherits from the library's or Lightning's classes."""
    if of_lightning := next((names for base, names in WITH_STATE.items() if issubclass(kind, base)), None):
        return of_lightning
    names: set[str] = set()
    for base in kind.__mro__:
        if _is_library(base) and base is not Callback:
            names.update(*(f.__code__.co_names for f in vars(base).values() if isinstance(f, FunctionType)))
    return frozenset(names)
