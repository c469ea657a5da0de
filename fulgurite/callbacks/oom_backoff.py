"""Report an out-of-memory error, so that the run can restart once with half the batch size."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.lightning import SubprocessScriptLauncher
from fulgurite.core.errors import OUT_OF_MEMORY_NOTE, is_out_of_memory
from fulgurite.core.files import write_atomic

SHUTDOWN_SECONDS = 30.0  # a rank waits for rank 0 to stop it: when it exits first, the launcher kills all ranks


class OOMBackoff(Callback):
    """Writes a note when a fit runs out of memory. `engine/oom_retry.py` reads it and halves the batch size.

    Each checkpoint holds the batch size. A run that resumes with another one converts its batch counters, so that
    the number of examples stays the same.

    Args:
        folder: The run directory.
        batch_size: Batch size of the data.
        halved_from: The requested values, when the batch size was halved.

    Example:
        >>> trainer = Trainer(callbacks=[OOMBackoff("run", batch_size=64)])
    """

    def __init__(self, folder: str | Path, batch_size: int, halved_from: Mapping[str, Any] | None = None) -> None:
        self.note = Path(folder) / OUT_OF_MEMORY_NOTE
        self.batch_size = batch_size
        self.halved_from = halved_from

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the note, on any rank."""
        if self.halved_from or trainer.state.fn != "fit" or not is_out_of_memory(exception):
            return
        launcher = trainer.strategy.launcher
        by_script = isinstance(launcher, SubprocessScriptLauncher)
        by_lightning = type(getattr(launcher, "cluster_environment", None)) is LightningEnvironment
        foreign = (by_script and not by_lightning) or trainer.num_nodes > 1
        note = {"rank": trainer.global_rank, "restart": by_script, "foreign": foreign}
        write_atomic(self.note, json.dumps(note))
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while by_script and trainer.global_rank > 0 and self.note.exists() and time.monotonic() < deadline:
            time.sleep(0.1)

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints: the first name of the class, so that older checkpoints load."""
        return "OomBackoff"

    def state_dict(self) -> dict[str, int]:
        """Return the batch size."""
        return {"batch_size": self.batch_size}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Convert the batch counters to the current batch size."""
        before = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("batch_size", self.batch_size)
        if before != self.batch_size:
            rescale_counters(checkpoint["loops"]["fit_loop"], before, self.batch_size)


def rescale_counters(loop: dict[str, Any], before: int, now: int) -> None:
    """Convert the batch counters of a fit loop's state to another batch size."""
    progress = loop["epoch_loop.batch_progress"]
    more = math.ceil(progress["current"]["ready"] * before / now) - progress["current"]["ready"]
    for counters in (progress["total"], progress["current"]):
        # add the same to all: their differences encode where in a batch the state was saved
        counters.update({name: done + more for name, done in counters.items()})
    loaders = loop["state_dict"].get("combined_loader")
    for state in loaders if isinstance(loaders, list) else []:
        if isinstance(state, dict) and state.get("batch_size"):
            state["batches"] = math.ceil(state["batches"] * before / now)
            state["batch_size"] = math.ceil(state["batch_size"] * now / before)
