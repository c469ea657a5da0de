"""Report how many examples an optimizer step sees."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.lightning import train_loaders
from fulgurite.core.context import current_context
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


class BatchSizes(Callback):
    """Logs the global batch size of the training and writes it to run.json; changes nothing.

    Example:
        >>> trainer = Trainer(callbacks=[BatchSizes()])  # global batch size 64 = 2 processes x 32, accumulate 1
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the batch size of each training loader."""
        sizes = [size for loader in train_loaders(trainer) if (size := _batch_size(loader)) is not None]
        if not sizes:
            return
        processes = int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1))
        accumulate, size = trainer.accumulate_grad_batches, sum(sizes)
        total = size * processes * accumulate
        if processes * accumulate > 1:
            noun = "process" if processes == 1 else "processes"
            log.info("global batch size %d = %d %s x %d, accumulate %d", total, processes, noun, size, accumulate)
        if (record := current_context().record) is not None:
            record.write(
                batch_size={"global": total, "per_process": size, "processes": processes, "accumulate": accumulate}
            )


def _batch_size(loader: Any) -> int | None:
    """Return the examples of a loader's batch; None if it builds batches itself."""
    sampler = getattr(loader, "batch_sampler", None)
    for place in (loader, sampler, getattr(sampler, "sharding", None)):
        if isinstance(size := getattr(place, "batch_size", None), int):
            return size
    return None
