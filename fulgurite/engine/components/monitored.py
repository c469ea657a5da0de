"""Check the names of monitored metrics, step ReduceLROnPlateau after validations only, and log an early stop."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.lightning import active_names
from fulgurite.config.metric_names import describe_missing, is_of_validation, optimized_metrics
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.formatting import counted, format_number
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)

NEVER = sys.maxsize  # frequency of a scheduler that must not step


class MonitoredMetrics(Callback):
    """Refuses a monitored metric that the validation does not log, and makes plateau schedulers wait for validations.

    The names are compared with what the sanity check logged, before the first step. A name that a training hook may
    log, or a model that logs less in the sanity check, is checked when Lightning needs the metric. An optimized metric
    is checked after the first validated epoch, but for metrics of the test, which `RunRecord.finish` checks.
    When EarlyStopping ends the training, it logs why.

    Args:
        names: Config key of each monitored metric to its name, e.g. `{"monitor": "val/acc"}`.
        scheduler_names: The same of metrics that only ReduceLROnPlateau reads, if the model has one.
        optimized: Names of the optimized metrics.
    """

    def __init__(
        self, names: Mapping[str, str], scheduler_names: Mapping[str, str], optimized: Sequence[str] = ()
    ) -> None:
        self.names = dict(names)
        self._keys = {name: key for key, name in scheduler_names.items()}
        self._optimized = [name for name in optimized if not name.startswith("test/")]
        self._validated_here = False  # not saved: a resumed run has logged nothing yet
        self._validation_names: set[str] = set()
        self._frequencies: list[int] = []  # the user's, of each scheduler
        self._has_validated = False  # since the plateau schedulers last stepped
        self._first_epoch = 0  # of this start

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints, independent of the class's name."""
        return "MonitoredMetrics"

    def state_dict(self) -> dict[str, Any]:
        """Return whether a validation waits for the plateau schedulers."""
        return {"has_validated": self._has_validated, "names": sorted(self._validation_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._has_validated = state_dict["has_validated"]
        self._validation_names = set(state_dict["names"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse validation metrics of a run without validation."""
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                name = str(config.monitor)
                self.names[self._keys.get(name, "the monitor of ReduceLROnPlateau")] = name
        self._frequencies = [config.frequency for config in trainer.lr_scheduler_configs]
        if trainer.enable_validation:
            return
        limited = vars(trainer)["limit_val_batches"] == 0
        reason = "trainer.limit_val_batches=0" if limited else "no val_dataloader or no validation_step"
        lines = [
            f"{key}={name}: the run has no validation ({reason}), so the metric is never logged. "
            "Monitor a metric of the training, or remove what monitors it."
            for key, name in self.names.items()
            if is_of_validation(name)
        ]
        if lines:
            raise ConfigError(lines)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this start begins: a resumed EarlyStopping still has the reason of an earlier stop."""
        self._first_epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log which EarlyStopping ended the training before `max_epochs` and `max_steps`, and why."""
        if not trainer.should_stop or trainer.max_epochs == trainer.current_epoch or _has_all_steps(trainer):
            return
        stoppings = [each for each in vars(trainer)["callbacks"] if isinstance(each, EarlyStopping)]
        reasons = [_explain_stop(each) for each in stoppings if each.stopped_epoch >= self._first_epoch]
        for reason in filter(None, reasons):
            log.info("stopped early in epoch %d: %s", trainer.current_epoch - 1, reason)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the names with what the sanity check logged."""
        logged = sorted({*trainer.callback_metrics, *active_names(trainer)})  # the former lack those of several loaders
        self._validation_names.update(logged)
        if _logs_less_in_sanity_check(pl_module):
            return
        wrong = [(key, name) for key, name in self.names.items() if name not in logged and is_of_validation(name)]
        if wrong:
            raise ConfigError([describe_missing(key, name, logged, "the validation logs") for key, name in wrong])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the names of a validation, and that it happened."""
        if not trainer.sanity_checking:
            self._has_validated = self._validated_here = True
            self._validation_names.update(active_names(trainer))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the optimized metrics: the model logs its means after `on_validation_end`."""
        for name in self._optimized if self._validated_here else ():
            require_metric(name, dict.fromkeys(trainer.callback_metrics, 0.0))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a scheduler that watches a validation metric step only where it has a new value."""
        # StochasticWeightAveraging adds a scheduler while training
        for config, frequency in zip(trainer.lr_scheduler_configs, self._frequencies, strict=False):
            if config.reduce_on_plateau and config.interval == "epoch" and frequency == 1:
                of_validation = config.monitor in self._validation_names or (
                    not self._validation_names and is_of_validation(str(config.monitor))
                )
                config.frequency = NEVER if of_validation and not self._has_validated else frequency
        self._has_validated = False


def monitoring_callbacks(cfg: DictConfig) -> list[Callback]:
    """Return the callbacks that check the monitored and the optimized metrics of a config."""
    optimized = optimized_metrics(cfg)
    names = dict(zip(("optimized_metric",), optimized, strict=False))
    names |= dict(_monitors(cfg.get("callbacks"), "callbacks"))
    scheduler_names = dict(_monitors(cfg.get("model"), "model"))
    return [MonitoredMetrics(names, scheduler_names, optimized)]


def require_metric(name: str, metrics: Mapping[str, float]) -> float:
    """Return the metric `name`, which the run must have logged."""
    if name not in metrics:
        raise UserError(describe_missing("optimized_metric", name, list(metrics), "the run logs"))
    return metrics[name]


def _monitors(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of each `monitor` of a callback or of the model's scheduler."""
    if not isinstance(node, DictConfig):
        return
    raw = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=False))
    for name in raw:
        inner, value = f"{key}.{name}", node.get(name)
        if isinstance(value, DictConfig):
            yield from _monitors(value, inner)
        elif str(name).endswith("monitor") and isinstance(value, str):
            is_shared = raw[name] == "${monitor}"
            yield "monitor" if is_shared else inner, value


def _logs_less_in_sanity_check(model: LightningModule) -> bool:
    """Return whether the source of the model's class mentions `sanity_checking`; also where it cannot be read."""
    for kind in type(model).__mro__:
        if kind is LightningModule:
            return False
        try:
            if "sanity_checking" in inspect.getsource(kind):
                return True
        except (OSError, TypeError):
            return True
    return False


def _has_all_steps(trainer: Trainer) -> bool:
    return 0 <= trainer.max_steps <= trainer.global_step


def _explain_stop(callback: EarlyStopping) -> str:
    """Return why an EarlyStopping stopped the training; empty if it did not."""
    is_waiting = callback.wait_count >= callback.patience  # false if the metric improved later, before `min_epochs`
    if callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED and is_waiting:
        best = format_number(float(callback.best_score))
        return f"{callback.monitor} has not improved for {counted(callback.wait_count, 'check')} (best {best})"
    if callback.stopping_reason_message:  # thresholds, values that are not finite, reasons of a subclass
        reason = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.").rstrip(".")
        return reason.replace("Monitored metric ", "", 1)
    return f"{callback.monitor} of another process" if callback.stopped_epoch else ""
