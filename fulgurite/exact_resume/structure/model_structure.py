"""Name what hooks change of a run's structure while it trains, and restore which module stands at which path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn

from fulgurite.compat.lightning import is_lazy_hook
from fulgurite.compat.modules import ModelParts, own_weights
from fulgurite.core.exactness import name_inexact
from fulgurite.core.rank_logging import RankedLogger

MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")

WHILE = (
    "while the run trained, and a resumed run makes it as its config says. Set it up in __init__, configure_model or "
    "on_train_start, or let the run finish without a stop."
)

log = RankedLogger(__name__)


def model_structure(parts: ModelParts) -> dict[str, str]:
    """Return the class of each module, the number of its hooks, and with what each weight is shared, by name."""
    structure: dict[str, str] = {}
    for path, module in parts.modules:
        if path:
            # a lazy module changes its class in the first batch
            structure[f"model.{path}"] = (getattr(type(module), "cls_to_become", None) or type(module)).__qualname__
        hooks = chain(
            (getattr(module, name, None) for name in MODULE_HOOKS),
            (getattr(weight, name, None) for _, weight in own_weights(module) for name in WEIGHT_HOOKS),
        )
        number = sum(not is_lazy_hook(hook) for each in hooks for hook in (each or {}).values())
        structure[f"model.{path} hooks" if path else "model hooks"] = f"{number} hooks"
    first: dict[int, str] = {}
    for name, weight in parts.all_weights:
        shared = first.setdefault(id(weight), name)
        structure[f"model.{name}"] = f"weight of {shared}" if shared != name else "weight of its own"
    return structure


def run_structure(trainer: Trainer) -> dict[str, str]:
    """Return what the config may change between two starts of a run: classes of its parts, and hooks of optimizers."""
    callbacks = vars(trainer)["callbacks"]
    theirs = [callback for callback in callbacks if not type(callback).__module__.startswith("fulgurite.")]
    parts: dict[str, list[Any]] = {"model": [trainer.lightning_module], "callbacks": theirs}
    parts["data"] = [getattr(trainer, "datamodule", None)]
    if not any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):  # it replaces them itself
        parts["lr_schedulers"] = [config.scheduler for config in trainer.lr_scheduler_configs]
    structure = {name: ", ".join(type(part).__qualname__ for part in each) for name, each in parts.items()}
    for number, optimizer in enumerate(trainer.optimizers):
        structure[f"optimizer {number} hooks"] = f"{sum(len(hooks) for _, hooks in hooks_of(optimizer))} hooks"
    return structure


def hooks_of(holder: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the functions that are called with a module or an optimizer, by the name of what they follow."""
    for name, part in vars(holder).items():
        if name[-6:] == "_hooks" and isinstance(part, dict) and part:
            yield name, tuple(part.values())


def name_changed_structure(
    before: Mapping[str, str], now: Mapping[str, str], switched: Mapping[str, str], *, is_save: bool = False
) -> None:
    """Name each part that both have and that differs; at a save, each module that was added or removed too.

    Paths of `switched` are left out: a resumed run switches these modules too.
    """
    switches = tuple(f"model.{path}" for path in {*switched, *switched.values()})
    before = {name: part for name, part in before.items() if not name.startswith(switches)}
    if is_save and before:
        _name_added(before, {name: part for name, part in now.items() if not name.startswith(switches)})
        for name in [name for name in before if name[:6] == "model." and name[-6:] == " hooks" and name not in now]:
            name_inexact(name.removesuffix(" hooks"), f"code removed it {WHILE}")
    for name in [name for name in before if now.get(name, before[name]) != before[name]]:
        name_inexact(
            name,
            f"code changed it from {before[name] or 'none'} to {now[name] or 'none'} {WHILE}",
        )


def _name_added(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    # a MetricTracker is restored with the metrics that it added
    trackers = tuple(f"{name}." for name, kind in now.items() if kind == "MetricTracker")
    for name in [name for name in now if name[:6] == "model." and name[-6:] == " hooks" and name not in before]:
        if not name.startswith(trackers):
            name_inexact(name.removesuffix(" hooks"), "code added it while the run trained. Make it in __init__.")


def switched_modules(start: Mapping[str, nn.Module], parts: ModelParts) -> dict[str, str]:
    """Return the paths at which another module of the start stands by now, and the path that it had there."""
    first: dict[int, str] = {}
    for path, module in start.items():
        first.setdefault(id(module), path)
    return {
        path: first[id(module)]
        for path, module in parts.all_modules
        if path in start and start[path] is not module and id(module) in first
    }


def switch_modules(model: nn.Module, start: Mapping[str, nn.Module], switched: Mapping[str, str]) -> None:
    """Set modules of the start at the paths at which `switched_modules` found them."""
    for path, first in switched.items():
        parent, _, name = path.rpartition(".")
        if first in start:
            setattr(model.get_submodule(parent), name, start[first])


def evaluate_scripts_without_inference_mode(trainer: Trainer) -> None:
    """Evaluate a model with TorchScript modules under `no_grad`.

    A script that ran in training first raises "Inference tensors cannot be saved for backward" under `inference_mode`
    (torch 2.13). A new run evaluates first, in its sanity check, and a resumed one trains first.
    """
    if not any(isinstance(module, torch.jit.ScriptModule) for module in trainer.lightning_module.modules()):
        return
    loops = (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
    if any(loop.inference_mode for loop in loops):
        log.info("the model has TorchScript modules: it is evaluated as with trainer.inference_mode=false.")
    for loop in loops:
        loop.inference_mode = False
