"""Run one batch through training, validation and test, and compare what they log with what the config names.

The check builds a data module, a model and a trainer of its own on one device of the chosen kind, and drops them. The
random number generators continue as if it had not run, and it writes no file. No callback and no logger of the project
is made. Code of the model and the data module that has effects of its own, such as a download in `prepare_data`, has
them once more.
"""

from __future__ import annotations

import copy
import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, open_dict

from fulgurite.config.metric_names import describe_missing, is_of_validation, optimized_metrics
from fulgurite.core.errors import ConfigError, FulguriteError, is_out_of_memory
from fulgurite.core.project import project_root
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.validation.deep.memory import Memory, SavedActivations, free_bytes, measure

log = RankedLogger(__name__)

Make = Callable[..., Any]  # builds a component from its config
LOOPS = {"train": "training", "validate": "validation", "test": "test"}
# Arguments of the trainer in the check: one process, no output.
TRAINER: dict[str, Any] = {
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "sync_batchnorm": False,
    "profiler": None,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_test_batches": 1,
    "check_val_every_n_epoch": 1,
    "val_check_interval": 1.0,
    "fast_dev_run": False,
}


@dataclass
class Report:
    """What one batch of each loop showed.

    Attributes:
        shapes: The tensors of the batch, by loop.
        metrics: The names that each loop logged.
        memory: Of the training step; None for a run that trains nothing.
    """

    shapes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, set[str]] = field(default_factory=dict)
    memory: Memory | None = None


class _Probe(Callback):
    """Notes the batches, the metrics and the memory of each loop."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._activations: SavedActivations | None = None
        self._saved: int | None = None
        self._free: int | None = None
        self._before: set[str] = set()  # names that were logged before the validation

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the training after one batch; schedulers were made for the length that the config gives it."""
        loop = trainer.fit_loop
        loop.max_batches, loop.max_epochs, loop.min_epochs, trainer.val_check_batch = 1, 1, 0, 1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.report.shapes["train"] = describe_batch(batch)
        self._free = free_bytes(pl_module.device)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        if not any(isinstance(module, torch._dynamo.OptimizedModule) for module in pl_module.modules()):
            self._activations = SavedActivations(pl_module)
            self._activations.start()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if self._activations is not None:
            self._saved, self._activations = self._activations.stop(), None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._activations is not None:
            self._activations.stop()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._activations is not None:  # manual optimization without manual_backward
            self._saved, self._activations = self._activations.stop(), None
        self.report.memory = measure(trainer, pl_module, self._saved, self._free)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.metrics["validate"] = set(trainer.callback_metrics) - self._before

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.report.shapes["validate"] = describe_batch(batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.report.shapes["test"] = describe_batch(batch)


def check_batches(
    cfg: DictConfig, parts: DictConfig, make: Make, callbacks: Callable[[], list[Callback]] = list
) -> Report:
    """Run one batch through each loop that the run will use, and log shapes, metrics and memory.

    Args:
        cfg: The composed config.
        parts: The config as its components are built from it.
        make: Builds a component: `make(node, key, **more arguments)`.
        callbacks: Makes the callbacks that the model needs.

    Raises:
        ConfigError: A loop fails, or `monitor`, `optimized_metric` or a callback names a metric that none logs.
    """
    report = Report()
    with isolate_rng(), _quiet(), TemporaryDirectory() as folder:
        findings = _run_loops(cfg, parts, make, callbacks, report, Path(folder))
    gc.collect()  # the model of the check frees its memory before that of the run is built
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if not findings and report.metrics:  # a loop that failed has logged nothing
        findings = _missing_metrics(cfg, report)
    if findings:
        raise ConfigError(findings)
    for loop, shapes in report.shapes.items():
        names = ", ".join(sorted(report.metrics.get(loop, ()))) or "nothing"
        log.info("validate=deep: %s batch %s, logs %s", LOOPS[loop], shapes, names)
    if report.memory is not None:
        memory = report.memory
        log.info("validate=deep: memory %s", memory.line)
        if memory.available is not None and memory.needed > memory.available:
            log.warning("validate=deep: the step needs more memory than is free. Lower data.batch_size")
    return report


def _run_loops(
    cfg: DictConfig, parts: DictConfig, make: Make, callbacks: Make, report: Report, folder: Path
) -> list[str]:
    own = copy.deepcopy(parts)
    with open_dict(own):
        validates = cfg.trainer.get("limit_val_batches") != 0
        own.trainer.pop("plugins", None)
        for name, value in {**TRAINER, "limit_val_batches": int(validates), "default_root_dir": str(folder)}.items():
            own.trainer[name] = value
    data: LightningDataModule = make(own.data, "data")
    model: LightningModule = make(own.model, "model")
    vars(model)["configure_callbacks"] = list  # those of the model would write, as those of the config do
    for loop in ("train", "test"):
        if not cfg.get(loop):
            continue
        # torchrun's environment would have one process stand for all
        own_callbacks = [_Probe(report), *callbacks()]
        if cfg.trainer.get("enable_checkpointing") is not False:
            own_callbacks.append(ModelCheckpoint(folder, save_top_k=0))  # a model may read it; it saves nothing
        more = {"callbacks": own_callbacks, "logger": False, "plugins": [LightningEnvironment()]}
        trainer: Trainer = make(own.trainer, "trainer", **more)
        if cfg.get("logger"):
            trainer.loggers = [DummyLogger()]  # a model may log by itself
        try:
            if loop == "train":
                trainer.fit(model, datamodule=data)
            else:
                trainer.test(model, datamodule=data, verbose=False)
        except FulguriteError:
            raise
        except Exception as error:  # noqa: BLE001 - of the user's code, which may raise anything
            line = _explain(error, trainer, report)
            if not (is_out_of_memory(error) and _is_parallel(cfg)):
                return [line]
            log.warning("validate=deep: %s The check has the whole batch on one device", line)
            break
        logged = set(trainer.callback_metrics)
        report.metrics[loop] = logged - report.metrics.get("validate", set()) if loop == "train" else logged
    return []


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's lines about devices and loaders, which the run itself logs."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _explain(error: Exception, trainer: Trainer, report: Report) -> str:
    """Return one line about a loop that failed: the project's own line, the error and the batch."""
    root, stage = project_root(), trainer.state.stage
    loop = "test" if trainer.testing else "validate" if trainer.validating or stage == "validate" else "train"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    foreign = {"fulgurite", "site-packages"}
    own = [frame for frame in own if not foreign & {*Path(frame.filename).relative_to(root).parts}]
    place = f"{Path(own[-1].filename).relative_to(root).as_posix()}:{own[-1].lineno}: " if own else ""
    batch = f" with the batch {report.shapes[loop]}" if loop in report.shapes else ""
    message = (str(error).splitlines() or [""])[0].rstrip(".")
    remedy = "Lower data.batch_size" if is_out_of_memory(error) else "Correct the code or the config"
    return f"{place}one batch of the {LOOPS[loop]} raises {type(error).__name__}: {message}{batch}. {remedy}."


def _missing_metrics(cfg: DictConfig, report: Report) -> list[str]:
    """Return a line for each metric that the config names and no loop logs; warn of names that others may log."""
    groups = cfg.get("callbacks") or {}
    monitored = {
        f"callbacks.{key}.monitor": str(node.monitor)
        for key, node in groups.items()
        if isinstance(node, DictConfig) and node.get("monitor")
    }
    of_fit = {name for loop in ("train", "validate") for name in report.metrics.get(loop, ())}
    of_all = of_fit | report.metrics.get("test", set())
    missing = [("optimized_metric", name, of_all) for name in optimized_metrics(cfg) if name not in of_all]
    if cfg.get("train"):
        missing += [(key, name, of_fit) for key, name in monitored.items() if name not in of_fit]
    findings = []
    for key, name, logged in missing:
        line = describe_missing(key, name, logged, "one batch of each loop logs")
        is_certain = not _may_log_more(cfg)
        if is_certain and (is_of_validation(name) or name.startswith("test")):
            findings.append(line)
        else:
            log.warning("validate=deep: %s. A callback may log it", line)
    return findings


def _is_parallel(cfg: DictConfig) -> bool:
    """Return whether the run may share its batch among several processes."""
    return str(cfg.trainer.get("devices", "auto")) != "1" or cfg.trainer.get("num_nodes", 1) != 1


def _may_log_more(cfg: DictConfig) -> bool:
    """Return whether a callback of the project's own stands in the config, whose metrics the check does not see."""
    entries = (cfg.get("callbacks") or {}).values()
    return any(str(entry.get("_target_", "")).startswith("src.") for entry in entries if isinstance(entry, DictConfig))


def describe_batch(batch: Any) -> str:
    """Return the shapes and types of the tensors in a batch: `[64, 1, 28, 28] float32, [64] int64`."""
    if isinstance(batch, torch.Tensor):
        return f"{list(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, Mapping):
        return f"{{{', '.join(f'{name}: {describe_batch(part)}' for name, part in batch.items())}}}"
    if isinstance(batch, (list, tuple)) and len(batch) <= 8:
        return ", ".join(map(describe_batch, batch))
    return type(batch).__name__
