"""Build the objects of a run from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hydra.utils import instantiate
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from fulgurite.callbacks.batch_sizes import BatchSizes
from fulgurite.checkpoints.loading import checkpoint_to_test, resolve_checkpoint
from fulgurite.checkpoints.setup import warn_if_disk_is_small
from fulgurite.compat.hydra import let_partials_pickle, unchecked
from fulgurite.compat.idle_hooks import skip_idle_hooks
from fulgurite.config.changes import log_start
from fulgurite.config.schema import Distributed, Extras, Resilience, read_settings
from fulgurite.config.target_policy import check_targets
from fulgurite.core.errors import ConfigError
from fulgurite.core.rank_logging import RankedLogger, filter_library_logs, rank
from fulgurite.dataloading.required_batches import RequireBatches
from fulgurite.distributed.hardware import require_hardware
from fulgurite.distributed.process_group import cluster_environment_plugin, configure_process_group
from fulgurite.distributed.supervision.launcher import install_supervision
from fulgurite.engine.components.arguments import with_attributes
from fulgurite.engine.components.causes import first_cause
from fulgurite.engine.components.held_logs import hold_logs, release_logs
from fulgurite.engine.components.kinds import check_kinds, require_kind, require_steps
from fulgurite.engine.components.monitored import monitoring_callbacks
from fulgurite.engine.components.places import places_added, rejections_added
from fulgurite.engine.components.steps import ScheduleLength
from fulgurite.engine.components.trials import rejected_optimizers
from fulgurite.engine.instrument import harden
from fulgurite.loggers.adapters import resume_loggers
from fulgurite.loggers.delivery import WaitBudget
from fulgurite.loggers.guarded import build_guarded
from fulgurite.loggers.log_dir import set_log_dir
from fulgurite.loggers.metrics_csv import MetricsCSVLogger, RecordLogged
from fulgurite.resume.restore import ResumedRun, find_resumed_run, restore
from fulgurite.runs.provenance import config_hash
from fulgurite.shutdown.signals import signal_handler
from fulgurite.study.pruning import pruning_callback
from fulgurite.validation.deep.check import check_batches

log = RankedLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The objects of one run.

    Attributes:
        cfg: The composed config.
        datamodule: The LightningDataModule.
        model: The LightningModule.
        trainer: The Trainer with its callbacks and loggers.
        resumed_from: The run that this one resumes in the same directory; None for a new run.

    Example:
        >>> run = fulgurite.build(cfg)
        >>> run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.restore(), weights_only=True)
    """

    cfg: DictConfig
    datamodule: LightningDataModule
    model: LightningModule
    trainer: Trainer
    resumed_from: ResumedRun | None = None

    def restore(self) -> str | None:
        """Restore the run of `resume=` or `ckpt_path=`, and return the checkpoint to resume from.

        Returns:
            A path for `ckpt_path` of `Trainer.fit` or `Trainer.test`; None for a run that starts from step 0.

        Raises:
            UserError: The checkpoint is missing, damaged or for another model.
        """
        if "resume" not in self.cfg:
            return resolve_checkpoint(self.cfg, self.model, trainer=self.trainer)
        return restore(self.cfg, self.model, self.trainer, self.resumed_from)

    def checkpoint_to_test(self, ckpt_path: str | None = None) -> str | None:
        """Return the checkpoint to test: the best of this run, else its last; None for the weights in memory.

        Args:
            ckpt_path: The path from `restore`, which a run that trains nothing tests.

        Raises:
            UserError: The run trains nothing, and `ckpt_path` is None.
        """
        return checkpoint_to_test(self.trainer, bool(self.cfg.get("train")), ckpt_path)


def build(cfg: DictConfig) -> Run:
    """Build trainer, data module and model from a composed and validated config.

    Raises:
        ConfigError: A target is not allowed, cannot be imported, or rejects its arguments.
        UserError: The machine lacks a device that the trainer needs.

    Example:
        >>> run = fulgurite.build(fulgurite.compose(["experiment=example"]))
    """
    extras, resilience = read_settings(cfg, Extras), read_settings(cfg, Resilience)
    filter_library_logs(ignore_warnings=extras.ignore_warnings)
    with places_added(cfg):
        check_targets(cfg)
        check_kinds(cfg)
        require_hardware(cfg.trainer)
    if cfg.get("seed") is not None:  # 0 is a seed
        seed_everything(cfg.seed, workers=True, verbose=False)
    parts, metrics = with_attributes(cfg), MetricsCSVLogger(cfg.paths.output_dir)
    if cfg.get("validate") == "deep" and rank() == 0:  # all processes of a machine would use its first device
        with places_added(cfg):
            check_batches(cfg, parts, _instantiate, lambda: [ScheduleLength(), RequireBatches()])
    with places_added(cfg), hold_logs() as held:
        trainer = _build_trainer(cfg, parts, metrics)
    log_start(cfg, extras.print_config)
    release_logs(held)
    log.debug("building loggers, data and model")
    resumed_from = find_resumed_run(cfg)
    trainer.loggers = [*_build_loggers(parts, resumed_from), metrics]  # self.logger is the first: the user's choice
    run_dir = Path(cfg.paths.output_dir)
    set_log_dir(trainer, run_dir)
    timeout = install_supervision(trainer, run_dir, read_settings(cfg, Distributed).rank_timeout_seconds)
    configure_process_group(trainer, cfg, timeout)
    with places_added(cfg):
        datamodule: LightningDataModule = _instantiate(parts.data, "data")
    harden(
        trainer,
        datamodule,
        run_dir=run_dir,
        seed=cfg.get("seed"),
        exact_resume=resilience.exact_resume,
        resumes=bool(cfg.get("ckpt_path")),
        stream_resume=resilience.stream_resume,
        save_attributes=resilience.save_attributes,
        async_checkpoints=resilience.async_checkpoints,
        checkpoint_metadata={"config_hash": config_hash(cfg)},
        handle_signals=signal_handler().is_installed,  # a notebook or a test keeps its own handlers
        grace_seconds=resilience.grace_seconds,
        worker_timeout_seconds=resilience.worker_timeout_seconds,
        supervise_ranks=False,  # install_supervision above: the process group needs its timeout
    )
    let_partials_pickle()
    with places_added(cfg):
        model: LightningModule = _instantiate(parts.model, "model")
        require_steps(model, cfg)
    skip_idle_hooks([model])
    if cfg.get("train"):
        warn_if_disk_is_small(trainer, model, run_dir)
    return Run(cfg=cfg, datamodule=datamodule, model=model, trainer=trainer, resumed_from=resumed_from)


def build_component(cfg: DictConfig, key: Literal["data", "model"], foreign: Mapping[str, str]) -> Any:
    """Build only the data module or the model of a run, whose `foreign` targets are limited; raise as `build` does."""
    check_targets(cfg, key, foreign)
    return _instantiate(with_attributes(cfg)[key], key)


def _build_trainer(cfg: DictConfig, parts: DictConfig, metrics: MetricsCSVLogger) -> Trainer:
    """Build the callbacks and the trainer.

    Raises:
        ConfigError: They, or the optimizers of torch, reject arguments; all of them, one line each.
    """
    findings: list[str] = []
    callbacks: list[Callback] = monitoring_callbacks(cfg)
    for key, node in (parts.get("callbacks") or {}).items():
        if node is not None:
            with rejections_added(findings):
                callbacks.append(_instantiate(node, f"callbacks.{key!s}"))
    callbacks += [BatchSizes(), *filter(None, [pruning_callback(cfg)]), RecordLogged(metrics), ScheduleLength()]
    findings += rejected_optimizers(cfg)
    arguments = {"callbacks": callbacks, "logger": [metrics], **cluster_environment_plugin(cfg)}
    with rejections_added(findings):
        trainer: Trainer = _instantiate(parts.trainer, "trainer", **arguments)
    if findings:
        raise ConfigError(findings)
    return trainer


def _instantiate(node: DictConfig, key: str, **extra: Any) -> Any:
    # "all": users' classes get lists and dictionaries as in Python, unless the config chooses otherwise
    convert = node.get("_convert_") or ("none" if node.get("_recursive_") is False else "all")
    try:
        built = instantiate(node, _convert_=convert, **unchecked(), **extra)
    except Exception as error:
        raise first_cause(error, key, node) from error
    require_kind(built, key)
    return built


def _build_loggers(cfg: DictConfig, resumed_from: ResumedRun | None) -> list[Logger]:
    """Build the loggers, guarded so that a failing logger does not stop the run."""
    group = cfg.get("logger")
    if resumed_from is not None:
        group = resume_loggers(cfg, resumed_from.loggers, resumed_from.logged_step)
    budget = WaitBudget(read_settings(cfg, Resilience).logger_timeout_seconds)
    built = [
        build_guarded(str(key), node, partial(_instantiate, node, f"logger.{key!s}"), cfg.paths.output_dir, budget)
        for key, node in (group or {}).items()
        if node is not None
    ]
    return [logger for logger in built if logger is not None]
