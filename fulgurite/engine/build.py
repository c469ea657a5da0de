"""Config in, live objects out. The only file that calls `instantiate`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hydra.utils import instantiate
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from fulgurite.checkpoints.loading import checkpoint_to_test, resolve_checkpoint
from fulgurite.checkpoints.setup import warn_if_disk_is_small
from fulgurite.compat.hydra import let_partials_pickle, unchecked
from fulgurite.compat.idle_hooks import skip_idle_hooks
from fulgurite.config.schema import Distributed, Extras, Resilience, read_settings
from fulgurite.config.target_policy import (
    check_targets,
)
from fulgurite.core.errors import ConfigError
from fulgurite.core.formatting import show_config
from fulgurite.core.metric_names import optimized_metrics
from fulgurite.core.rank_logging import RankedLogger, filter_library_logs
from fulgurite.distributed.process_group import cluster_environment_plugin, configure_process_group
from fulgurite.distributed.supervision.launcher import install_supervision
from fulgurite.engine.hardware import require_hardware
from fulgurite.engine.instrument import harden
from fulgurite.engine.objective import MetricNames
from fulgurite.loggers.adapters import resume_loggers
from fulgurite.loggers.delivery import WaitBudget
from fulgurite.loggers.guarded import build_guarded
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from fulgurite.resume.restore import ResumedRun, find_resumed_run, restore
from fulgurite.runs.provenance import config_hash
from fulgurite.shutdown.signals import signal_handler
from fulgurite.study.pruning import pruning_callback

log = RankedLogger(__name__)


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
    resumed_from: ResumedRun | None = None

    def restore(self) -> str | None:
        """Restore what the config asks for (`resume=`, `ckpt_path=`), and return the checkpoint to continue from.

        Returns:
            A path for `ckpt_path` of `Trainer.fit` or `Trainer.test`; None for a run that starts from step 0.

        Raises:
            UserError: The checkpoint is missing, damaged or of another model.
        """
        if "resume" not in self.cfg:
            return resolve_checkpoint(self.cfg, self.model)
        return restore(self.cfg, self.model, self.trainer, self.resumed_from)

    def checkpoint_to_test(self, ckpt_path: str | None = None) -> str | None:
        """Return the checkpoint to test: the best one of this run, else its last one, else the one given.

        Args:
            ckpt_path: What `restore` returned.

        Raises:
            UserError: Nothing was trained and no checkpoint is given.
        """
        return checkpoint_to_test(self.trainer, bool(self.cfg.get("train")), ckpt_path)


def build(cfg: DictConfig) -> Run:
    """Make the live objects of a run.

    The trainer is made first: a machine without the asked hardware is known before any data is touched.

    Args:
        cfg: A composed and validated config.

    Raises:
        ConfigError: A target is not allowed, cannot be imported, or refuses its arguments.
        UserError: The machine lacks what the trainer asks for.
    """
    extras, resilience = read_settings(cfg, Extras), read_settings(cfg, Resilience)
    filter_library_logs(ignore_warnings=extras.ignore_warnings)
    check_targets(cfg)
    require_hardware(cfg.trainer)
    if extras.print_config:
        show_config(cfg)
    if cfg.get("seed") is not None:  # 0 is a seed like any other
        seed_everything(cfg.seed, workers=True, verbose=False)
    log.debug("building trainer, data and model")
    earlier = find_resumed_run(cfg)
    callbacks: list[Callback] = _instantiate_each(cfg.get("callbacks"), "callbacks")
    callbacks += [MetricNames(name) for name in optimized_metrics(cfg)]
    if (pruning := pruning_callback(cfg)) is not None:
        callbacks.append(pruning)
    loggers = [MetricsCSVLogger(cfg.paths.output_dir), *_build_loggers(cfg, earlier)]
    arguments = {"callbacks": callbacks, "logger": loggers, **cluster_environment_plugin(cfg)}
    trainer: Trainer = _instantiate(cfg.trainer, "trainer", **arguments)
    run_dir = Path(cfg.paths.output_dir)
    timeout = install_supervision(trainer, run_dir, read_settings(cfg, Distributed).rank_timeout_seconds)
    configure_process_group(trainer, cfg, timeout)
    datamodule: LightningDataModule = _instantiate(cfg.data, "data")
    harden(
        trainer,
        datamodule,
        run_dir=run_dir,
        seed=cfg.get("seed"),
        exact_resume=resilience.exact_resume,
        resumes=bool(cfg.get("ckpt_path")),
        async_checkpoints=resilience.async_checkpoints,
        checkpoint_metadata={"config_hash": config_hash(cfg)},
        handle_signals=signal_handler().is_installed,  # a notebook or a test keeps its own handlers
        grace_seconds=resilience.grace_seconds,
        worker_timeout_seconds=resilience.worker_timeout_seconds,
        supervise_ranks=False,  # done above: the process group depends on it
    )
    let_partials_pickle()
    model: LightningModule = _instantiate(cfg.model, "model")
    skip_idle_hooks([model])
    if cfg.get("train"):
        warn_if_disk_is_small(trainer, model, run_dir)
    return Run(cfg=cfg, datamodule=datamodule, model=model, trainer=trainer, resumed_from=earlier)


def build_component(cfg: DictConfig, key: Literal["data", "model"]) -> Any:
    """Make only the data module or only the model of a run.

    Args:
        cfg: A composed config.
        key: Which of the two.

    Raises:
        ConfigError: As `build`.
    """
    check_targets(cfg, key)
    return _instantiate(cfg[key], key)


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


def _build_loggers(cfg: DictConfig, earlier: ResumedRun | None) -> list[Logger]:
    """Build the loggers of the config, guarded: none of them may stop the run."""
    group = cfg.get("logger") if earlier is None else resume_loggers(cfg, earlier.loggers, earlier.step)
    budget = WaitBudget(read_settings(cfg, Resilience).logger_timeout_seconds)
    built = [
        build_guarded(str(key), node, partial(_instantiate, node, f"logger.{key!s}"), cfg.paths.output_dir, budget)
        for key, node in (group or {}).items()
        if node is not None
    ]
    return [logger for logger in built if logger is not None]


def _instantiate_each(group: DictConfig | None, name: str) -> list[Any]:
    """Make every entry of a group of configs; entries that are null are switched off."""
    return [_instantiate(node, f"{name}.{key!s}") for key, node in (group or {}).items() if node is not None]
