"""The metrics that a sweep or a search optimizes."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.core.errors import UserError, did_you_mean


class MetricNames(Callback):
    """Stops a run after its first validated epoch when the metric to be optimised is none that it logs.

    Found after an epoch, not after weeks. Names of the test cannot be known by then and are judged at the end.

    Args:
        wanted: Name of the metric.
    """

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self._validated = False  # in this start: one that goes on has logged nothing yet

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From the next epoch on the names are known."""
        self._validated = self._validated or not trainer.sanity_checking

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the names of the epochs before: at the end of an epoch the model has not logged its means yet."""
        if self.wanted.startswith("test/") or not self._validated:
            return
        require_metric(self.wanted, dict.fromkeys(trainer.callback_metrics, 0.0))


def require_metric(wanted: str, metrics: Mapping[str, float]) -> float:
    """Return the metric called `wanted`.

    Raises:
        UserError: There is none of that name.
    """
    if wanted not in metrics:
        raise UserError(
            f"optimized_metric={wanted}: the run logs no such metric{did_you_mean(wanted, metrics)}"
            f" (logged: {', '.join(sorted(metrics)) or 'none'})"
        )
    return metrics[wanted]
