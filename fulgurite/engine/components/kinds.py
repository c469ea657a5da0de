"""Check that each component of a run is of Lightning's kind."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fulgurite.config.target_policy import locate
from fulgurite.core.errors import ConfigError

KINDS: dict[str, type[Any]] = {"model": LightningModule, "data": LightningDataModule, "trainer": Trainer}
GROUPS: dict[str, type[Any]] = {"callbacks": Callback, "logger": Logger}


def check_kinds(cfg: DictConfig) -> None:
    """Refuse a class that cannot be the component whose place it has, before anything is built."""
    places = [(key, cfg.get(key), kind) for key, kind in KINDS.items()]
    for group, kind in GROUPS.items():
        places += [(f"{group}.{name}", node, kind) for name, node in (cfg.get(group) or {}).items()]
    findings = [line for key, node, kind in places if isinstance(node, DictConfig) for line in _wrong(key, node, kind)]
    optimizer = OmegaConf.select(cfg, "model.optimizer", throw_on_missing=False)
    if isinstance(optimizer, DictConfig):
        findings += _wrong("model.optimizer", optimizer, Optimizer, others=(nn.Module, LRScheduler))
    scheduler = OmegaConf.select(cfg, "model.scheduler", throw_on_missing=False)
    if isinstance(scheduler, DictConfig):  # it may be another class than torch's, e.g. that of a diffusion model
        findings += _wrong("model.scheduler", scheduler, LRScheduler, others=(Optimizer,))
    if findings:
        raise ConfigError(findings)


def _wrong(key: str, node: DictConfig, kind: type[Any], others: tuple[type[Any], ...] = (object,)) -> Iterator[str]:
    """Yield why a class is not of a kind; a function may return anything, see `require_kind`."""
    found = locate(str(node._target_)) if "_target_" in node else None
    if inspect.isclass(found) and not issubclass(found, kind) and issubclass(found, others):
        yield _describe(f"{key}._target_", found, kind)


def require_kind(built: Any, key: str) -> None:
    """Refuse a component that is not of the kind of its place."""
    kind = KINDS.get(key) or GROUPS.get(key.partition(".")[0])
    if kind is not None and not isinstance(built, kind):
        raise ConfigError([_describe(key, type(built), kind)])


def require_steps(model: LightningModule, cfg: DictConfig) -> None:
    """Require the step methods that a run calls, before it trains."""
    lines = []
    trains, tests = bool(cfg.get("train")), bool(cfg.get("test", True))
    for key, is_needed, step in (("train", trains, "training_step"), ("test", tests, "test_step")):
        if is_needed and not is_overridden(step, model):
            remedy = f"Add one, or set {key}=false" if key in cfg else "Add one"
            given = f"{key}=true" if key in cfg else "model"
            lines.append(f"{given}: {type(model).__name__} has no {step}. {remedy}.")
    if lines:
        raise ConfigError(lines)


def is_of_pytorch_lightning(found: type[Any]) -> bool:
    """Return whether a class is of the package `pytorch_lightning`, whose classes are not those of `lightning`."""
    return any(base.__module__.partition(".")[0] == "pytorch_lightning" for base in found.__mro__)


def _describe(key: str, found: type[Any], kind: type[Any]) -> str:
    name = f"{found.__module__}.{found.__qualname__}"
    if is_of_pytorch_lightning(found):
        return f"{key}: {name} is a class of pytorch_lightning. Import from lightning.pytorch in its file"
    homes = {Optimizer: "torch.optim", LRScheduler: "torch.optim.lr_scheduler"}
    article, home = "an" if kind in homes else "a", homes.get(kind, "lightning.pytorch")
    remedy = f"Name a class that inherits from {kind.__name__} of {home}"
    return f"{key}: {name} is not {article} {kind.__name__}. {remedy}"
