"""Show progress: one line per epoch, in terminals and log files alike, and a bar under them at a terminal."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar

from fulgurite.callbacks.model_summary import ParameterSummary
from fulgurite.callbacks.progress_text import ProgressText, progress_line
from fulgurite.callbacks.step_log import batch_loss
from fulgurite.core.formatting import format_number
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.terminal.status_line import StatusLine, shows_status_line

log = RankedLogger(__name__)

SECONDS_BETWEEN_DRAWS = 0.2
SMOOTHING = 0.9  # weight of the earlier values in the loss that the bar shows


def progress_bar(refresh_rate: int = 1) -> Callback:
    """Return a callback that logs one line per epoch, and draws a bar under them at a terminal.

    Args:
        refresh_rate: Batches between two updates of the bar, which is drawn five times a second at most.

    Example:
        >>> trainer = Trainer(callbacks=[progress_bar(), model_summary()])
    """
    return EpochBar(refresh_rate) if shows_status_line() else EpochLines()


def model_summary(max_depth: int = 2) -> Callback:
    """Return a summary of the modules that have parameters, and of the parameter counts.

    Args:
        max_depth: Levels of nested modules to show; -1 shows all, 0 none.
    """
    return ParameterSummary(max_depth=max_depth)


class EpochLines(ProgressBar):
    """Logs one line per epoch: number from 0, as in file names and metrics.csv, metrics and seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch: int | None = None  # of the line to come; None outside of training
        self._started = 0.0
        self._first_batch_seen: int | None = None  # of a run that resumes amid an epoch, until that epoch's line
        self.epoch_seconds: float | None = None  # of the last whole epoch
        self.shown: dict[str, float] = {}  # the metrics of the last line

    def enable(self) -> None:
        """Do nothing: the logger logs on rank 0 only."""

    disable = enable

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the start, also of a run that resumes amid an epoch, whose start Lightning does not announce."""
        is_amid = trainer.fit_loop.restarted_mid_epoch
        self._epoch = trainer.current_epoch if is_amid else None
        self._first_batch_seen = trainer.fit_loop.total_batch_idx if is_amid else None
        self._started, self.epoch_seconds = time.monotonic(), None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line of the previous epoch: its means are logged only now."""
        self._log_epoch(trainer)
        self._epoch, self._started = trainer.current_epoch, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line of the last epoch."""
        self._log_epoch(trainer)
        self._epoch = None

    def _log_epoch(self, trainer: Trainer) -> None:
        first_batch, self._first_batch_seen = self._first_batch_seen, None
        if self._epoch is None or first_batch == trainer.fit_loop.total_batch_idx:  # resumed with nothing left to do
            return
        seconds = time.monotonic() - self._started
        self.epoch_seconds = seconds if first_batch is None else None
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        # self.log(on_step=True, on_epoch=True) logs a value under three names
        self.shown = {name: value for name, value in values.items() if not _is_copy(name, values)}
        metrics = "".join(f"  {name} {format_number(value)}" for name, value in self.shown.items())
        log.info("%s%s  %.1f s", epoch_of(trainer, self._epoch), metrics, seconds)


class EpochBar(EpochLines):
    """Logs one line per epoch, and draws a bar under them: loss, learning rate, speed and the time left."""

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__()
        self.refresh_rate = max(1, refresh_rate)
        self._is_enabled = True
        self._line: StatusLine | None = None
        self._next_draw = 0.0
        self._first_batch, self._batches_started = 0, 0.0  # of what the speed is measured over
        self._loss: float | None = None

    def enable(self) -> None:
        """Draw the bar."""
        self._is_enabled = True

    def disable(self) -> None:
        """Draw no bar, as on ranks above 0."""
        self._is_enabled = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the bar."""
        super().setup(trainer, pl_module, stage)
        if self._is_enabled and self._line is None:
            self._line = StatusLine()
            self._line.open()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Close the bar, after an exception before the error is reported."""
        if self._line is not None:
            self._line.close()
            self._line = None

    on_exception = teardown

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line of the previous epoch, and measure the speed anew."""
        super().on_train_epoch_start(trainer, pl_module)
        self._batches_started = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw the bar of the training, every `refresh_rate` batches at most."""
        if batch_idx % self.refresh_rate or not self._is_due():
            return
        now = time.monotonic()
        if not self._batches_started:  # the first batch of a process is slower
            self._first_batch, self._batches_started = batch_idx, now
        if (loss := batch_loss(trainer, outputs)) is not None:
            value = float(loss)
            self._loss = value if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * value
        batches, optimizers = batch_idx - self._first_batch, trainer.optimizers
        rate = batches / (now - self._batches_started) if batches else None
        epoch_left, run_left = self._seconds_left(trainer, batch_idx + 1, rate)
        self._draw(
            ProgressText(
                epoch_of(trainer, trainer.current_epoch),
                batch_idx + 1,
                self.total_train_batches,
                loss=self._loss,
                lr=float(optimizers[0].param_groups[0]["lr"]) if optimizers else None,
                metrics=self._metrics_of_step(trainer),
                rate=rate,
                epoch_left=epoch_left,
                run_left=run_left,
            )
        )

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **_: Any) -> None:
        """Draw the bar of the validation."""
        self._draw_loop("sanity check" if trainer.sanity_checking else "validation", "val", *args[3:])

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **_: Any) -> None:
        """Draw the bar of the test."""
        self._draw_loop("test", "test", *args[3:])

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **_: Any) -> None:
        """Draw the bar of a prediction."""
        self._draw_loop("prediction", "predict", *args[3:])

    def _draw_loop(self, label: str, loop: str, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not batch_idx % self.refresh_rate and self._is_due():
            self.has_dataloader_changed(dataloader_idx)
            total = getattr(self, f"total_{loop}_batches_current_dataloader")
            self._draw(ProgressText(label, batch_idx + 1, total))

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the values of the sanity check, which stay with the trainer."""
        self.shown = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}

    def _metrics_of_step(self, trainer: Trainer) -> dict[str, float]:
        """Return what the model logs with `prog_bar=True`, without the values of the line above."""
        values = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        return {name: value for name, value in values.items() if self.shown.get(name) != value}

    def _is_due(self) -> bool:
        if self._line is None or (now := time.monotonic()) < self._next_draw:
            return False
        self._next_draw = now + SECONDS_BETWEEN_DRAWS
        return True

    def _draw(self, shown: ProgressText) -> None:
        assert self._line is not None
        self._line.draw(progress_line(shown, self._line.width))

    def _seconds_left(self, trainer: Trainer, done: int, rate: float | None) -> tuple[float | None, float | None]:
        """Estimate the seconds left of the epoch and of the run; None where the end is not known."""
        total = self.total_train_batches
        if not rate or total == float("inf"):
            return None, None
        epoch_left = max(0.0, (total - done) / rate)
        limits = []
        if (epochs := trainer.max_epochs) is not None and epochs > 0:
            per_epoch = self.epoch_seconds or total / rate
            limits.append(epoch_left + max(0, epochs - 1 - trainer.current_epoch) * per_epoch)
        if trainer.max_steps > 0:
            steps_left = trainer.max_steps - trainer.global_step
            limits.append(max(0.0, steps_left * trainer.accumulate_grad_batches / rate))
        return min(epoch_left, *limits) if limits else epoch_left, min(limits, default=None)


def epoch_of(trainer: Trainer, epoch: int) -> str:
    """Return the number of an epoch and that of the last one, both from 0: `epoch 3/19`."""
    last = trainer.max_epochs
    return f"epoch {epoch}" if last in (None, -1) else f"epoch {epoch}/{last - 1}"


def _is_copy(name: str, values: dict[str, float]) -> bool:
    """Return whether a metric is the fork of a step or of an epoch of another one."""
    return any(name.endswith(end) and name.removesuffix(end) in values for end in ("_step", "_epoch"))
