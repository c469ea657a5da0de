"""Config in, live objects out. The only file that calls `instantiate`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from hydra.utils import instantiate
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from src.base.errors import ConfigError
from src.base.logs import RankedLogger, quiet_libraries
from src.run.checkpoint_saving import keep_checkpoints_whole
from src.run.compat import let_partials_pickle, unchecked
from src.run.delivery import Patience
from src.run.exact.equal import share_ranks
from src.run.exact.resume import apply_exact_resume
from src.run.guards import make_tracker
from src.run.hardware import require_hardware
from src.run.hooks import leave_out_idle_hooks
from src.run.launcher import watch_ranks
from src.run.metric_names import metrics_of
from src.run.metrics import MetricNames, MetricsFile
from src.run.processes.group import launched_plugins, prepare_group
from src.run.resume.begin import Continued, find_continued
from src.run.search.pruning import reporter_of_job
from src.run.stopping import stop_on_signals
from src.run.trackers import go_on
from src.run.waiting import LimitWaiting

log = RankedLogger(__name__)

# Packages whose classes and functions a config may name, without what runs code that is not installed.
ALLOWED = ("src", "lightning", "torch", "torchmetrics", "optuna", "aim", "datetime.timedelta")
REFUSED = (
    "torch.hub",
    "torch.serialization",
    "torch.package",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "torch.utils._",
    "torch._",
    "src.base",
    "src.run",
)


@dataclass(frozen=True)
class Run:
    """The live objects of one run.

    Attributes:
        cfg: The composed config they were made from.
        datamodule: What is learned from.
        model: What is learned.
        trainer: What brings the two together, with its callbacks and loggers.
        earlier: What the run goes on with in the same directory; None for a new run.
    """

    cfg: DictConfig
    datamodule: LightningDataModule
    model: LightningModule
    trainer: Trainer
    earlier: Continued | None = None


def build(cfg: DictConfig) -> Run:
    """Make the live objects of a run.

    The trainer is made first: a machine without the asked hardware is known before any data is touched.

    Args:
        cfg: A composed and validated config.

    Raises:
        ConfigError: A target is not allowed, cannot be imported, or refuses its arguments.
        UserError: The machine lacks what the trainer asks for.
    """
    quiet_libraries(ignore_warnings=bool(cfg.extras.get("ignore_warnings")))
    check_targets(cfg)
    require_hardware(cfg.trainer)
    log.debug("building trainer, data and model")
    earlier = find_continued(cfg)
    callbacks: list[Callback] = _instantiate_each(cfg.get("callbacks"), "callbacks")
    loggers = _trackers(cfg, earlier)
    metrics_file = MetricsFile(cfg.paths.output_dir)
    callbacks.append(LimitWaiting(cfg.extras.get("worker_timeout") or 0))
    callbacks += [MetricNames(name) for name in metrics_of(cfg)]
    if (reporter := reporter_of_job(cfg)) is not None:
        callbacks.append(reporter)
    more = {"callbacks": callbacks, "logger": [metrics_file, *loggers], **launched_plugins(cfg)}
    trainer = _instantiate(cfg.trainer, "trainer", **more)
    timeout = watch_ranks(trainer, Path(cfg.paths.output_dir), float(cfg.extras.get("rank_timeout", 600)))
    prepare_group(trainer, cfg, timeout)
    datamodule: LightningDataModule = _instantiate(cfg.data, "data")
    wanted = bool(cfg.extras.get("exact_resume"))
    apply_exact_resume(trainer, cfg.get("seed"), wanted=wanted, resumes=bool(cfg.get("ckpt_path")))
    share_ranks(trainer)
    stop_on_signals(trainer, datamodule, cfg)
    let_partials_pickle()
    model: LightningModule = _instantiate(cfg.model, "model")
    keep_checkpoints_whole(trainer, model, cfg)
    leave_out_idle_hooks(vars(trainer)["callbacks"])
    return Run(cfg=cfg, datamodule=datamodule, model=model, trainer=trainer, earlier=earlier)


def build_part(cfg: DictConfig, key: Literal["data", "model"]) -> Any:
    """Make only the data module or only the model of a run.

    Args:
        cfg: A composed config.
        key: Which of the two.

    Raises:
        ConfigError: As `build`.
    """
    check_targets(cfg)
    return _instantiate(cfg[key], key)


def check_targets(cfg: DictConfig) -> None:
    """Import every `_target_` of the config and judge the object found, not the string that names it.

    Raises:
        ConfigError: All targets that cannot be imported or are not allowed, one line each.
    """
    allowed = (*ALLOWED, *(cfg.get("extras") or {}).get("allowed_targets", ()))
    findings = []
    for key, target in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        try:
            problem = _judge(_locate(target), allowed)
        except _NotFoundError as error:
            problem = str(error)
        if problem:
            findings.append(f"{key}._target_: {target!r} {problem}")
    if findings:
        raise ConfigError(findings)


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        target = node.get("_target_")
        if isinstance(target, str) and target != "???":
            yield key, target
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from _targets(child, f"{key}[{position}]")


class _NotFoundError(Exception):
    """A target that no import leads to; the message says at which step."""


def _locate(target: str) -> Any:
    """Return the object that a dotted path names, importing the longest part of it that is a module."""
    parts = target.split(".")
    found: Any = None
    for length in range(1, len(parts) + 1):
        path, parent = ".".join(parts[:length]), ".".join(parts[: length - 1])
        # below another name of a module, e.g. logging.os, nothing can be imported
        if found is not None and not (isinstance(found, ModuleType) and found.__name__ == parent):
            if not hasattr(found, parts[length - 1]):
                raise _NotFoundError(f"does not exist: {parent} has no {parts[length - 1]!r}")
            found = getattr(found, parts[length - 1])
            continue
        try:
            found = importlib.import_module(path)
        except Exception as error:
            # a missing part is only a missing part when the import system names that very part
            missing = isinstance(error, ModuleNotFoundError) and error.name == path
            if found is not None and missing and hasattr(found, parts[length - 1]):
                found = getattr(found, parts[length - 1])
            elif missing and found is None:
                raise _NotFoundError(
                    f"does not exist: there is no package {path!r}; install it or correct the name"
                ) from error
            elif missing:
                raise _NotFoundError(f"does not exist: {found.__name__} has no {parts[length - 1]!r}") from error
            else:
                raise _NotFoundError(
                    f"cannot be imported: {path} fails with {type(error).__name__}: {error}"
                ) from error
    return found


def _judge(found: Any, allowed: Sequence[str]) -> str:
    """Return why the object may not be called from a config, or an empty string."""
    if isinstance(found, ModuleType) or not callable(found):
        return "is not something that can be called; name a class or a function"
    owner = getattr(found, "__module__", None)
    if owner is None:  # a bound method: judge the class it belongs to
        owner = getattr(type(getattr(found, "__self__", found)), "__module__", "")
    name = f"{owner}.{getattr(found, '__qualname__', type(found).__qualname__)}"
    if _is_within(name, REFUSED) or not _is_within(name, allowed):
        return (
            f"is really {name}, which configs may not call; "
            "a config may name classes of " + ", ".join(allowed) + "; add a package with extras.allowed_targets"
        )
    return ""


def _is_within(name: str, roots: Sequence[str]) -> bool:
    return any(name == root or name.startswith(root if root.endswith("_") else f"{root}.") for root in roots)


def _instantiate(node: DictConfig, key: str, **extra: Any) -> Any:
    try:
        # plain lists and dicts: a ListConfig in the hyperparameters could not be loaded with weights_only=True
        return instantiate(node, _convert_="all", **unchecked(), **extra)
    except Exception as error:
        raise _first_cause(error, key) from error


def _first_cause(error: Exception, key: str) -> Exception:
    """Return Hydra's wrapper as the error that it wraps, when that one is a plain refusal of arguments."""
    cause = error.__cause__
    if type(error).__name__ == "InstantiationException" and isinstance(cause, (TypeError, ValueError)):
        return ConfigError([f"{key}: {type(cause).__name__}: {str(cause).splitlines()[0]}"])
    return cause if isinstance(cause, Exception) else error


def _trackers(cfg: DictConfig, earlier: Continued | None) -> list[Logger]:
    """Make every tracker of the config that can be had now, guarded: none of them may stop the run."""
    group = cfg.get("logger") if earlier is None else go_on(cfg, earlier.loggers, earlier.step)
    patience = Patience(float(cfg.extras.get("tracker_timeout", 30)))
    made = [
        make_tracker(str(key), node, partial(_instantiate, node, f"logger.{key!s}"), cfg.paths.output_dir, patience)
        for key, node in (group or {}).items()
        if node is not None
    ]
    return [tracker for tracker in made if tracker is not None]


def _instantiate_each(group: DictConfig | None, name: str) -> list[Any]:
    """Make every entry of a group of configs; entries that are null are switched off."""
    return [_instantiate(node, f"{name}.{key!s}") for key, node in (group or {}).items() if node is not None]
