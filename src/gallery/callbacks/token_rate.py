"""How fast a language model trains."""

from __future__ import annotations

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class TokenRate(Callback):
    """Logs the target tokens per second when training ends, but not as a metric: a resumed run has another rate.

    Only the time of the training batches counts, without validation and checkpoints. The callback waits for the device
    after each.
    """

    def __init__(self) -> None:
        self.seconds, self.tokens, self.begin = 0.0, 0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self.begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clock, and count the tokens of the batch's target."""
        outputs["loss"].item()  # waits for the device, which may still be at work
        self.seconds += time.perf_counter() - self.begin
        self.tokens += int(batch[3].sum()) if len(batch) == 4 else batch[1].numel()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rate."""
        if self.seconds:
            log.info("%.0f tokens per second on %s", self.tokens / self.seconds, trainer.strategy.root_device)
