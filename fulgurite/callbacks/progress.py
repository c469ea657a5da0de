"""Show progress: a bar and tables at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelSummary, RichModelSummary, RichProgressBar
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar

from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


def progress_bar(refresh_rate: int = 10) -> Callback:
    """Return a progress bar at a terminal, else one line per epoch.

    Args:
        refresh_rate: Batches between two updates of the bar.

    Example:
        >>> trainer = Trainer(callbacks=[progress_bar(), model_summary()])
    """
    return RichProgressBar(refresh_rate=refresh_rate) if sys.stdout.isatty() else EpochLines()


def model_summary(max_depth: int = 2) -> Callback:
    """Return a summary of layers and parameter counts: a table at a terminal, else plain text.

    Args:
        max_depth: Levels of nested modules to show; -1 shows all, 0 none.
    """
    return (RichModelSummary if sys.stdout.isatty() else ModelSummary)(max_depth=max_depth)


class EpochLines(ProgressBar):
    """Logs one line per epoch: number, metrics and seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._started: float | None = None

    def enable(self) -> None:
        """Do nothing: the logger logs on rank 0 only."""

    disable = enable

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line of the previous epoch: its means are logged only now."""
        self._log_epoch(trainer)
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line of the last epoch."""
        self._log_epoch(trainer)
        self._started = None

    def _log_epoch(self, trainer: Trainer) -> None:
        if self._started is None:
            return
        metrics = "  ".join(f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items()))
        total = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        seconds = time.monotonic() - self._started
        log.info("epoch %d%s  step %d  %s  %.1f s", trainer.current_epoch, total, trainer.global_step, metrics, seconds)
