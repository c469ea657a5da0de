"""Require that a run logs the metrics that a sweep or a search optimizes."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.core.errors import UserError, did_you_mean


class MetricNames(Callback):
    """Callback that stops a run after its first validated epoch if it does not log `name`.

    Metrics of the test are not logged by then: `RunRecord.finish` checks them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._validated = False  # not saved: a resumed run has logged nothing yet

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check from the next epoch on."""
        self._validated = self._validated or not trainer.sanity_checking

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the names of the previous epochs: the model logs its means after `on_validation_end`."""
        if self._validated and not self.name.startswith("test/"):
            require_metric(self.name, dict.fromkeys(trainer.callback_metrics, 0.0))


def require_metric(name: str, metrics: Mapping[str, float]) -> float:
    """Return the metric `name`.

    Raises:
        UserError: The run did not log it.
    """
    if name not in metrics:
        raise UserError(
            f"optimized_metric={name}: the run logs no such metric{did_you_mean(name, metrics)}"
            f" (logged: {', '.join(sorted(metrics)) or 'none'})"
        )
    return metrics[name]
