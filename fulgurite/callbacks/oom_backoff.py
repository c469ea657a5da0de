"""Notes that a training has run out of memory, so that the run can begin again with smaller batches; once."""

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
from fulgurite.core.errors import is_out_of_memory
from fulgurite.core.files import write_atomic

PATIENCE = 30.0  # seconds that a rank waits for rank 0 to end it; one that dies at once has the launcher end all


class OOMBackoff(Callback):
    """Leaves a note when a fit runs out of memory; run/backoff.py reads it and halves the batch.

    Keeps in each checkpoint of which size the batches were that it counts, and counts them anew for a run that goes on
    with another size: as many examples are done, whatever the size of a batch.

    Args:
        folder: The run's directory.
        batch_size: Of the data.
        halved_from: What the run was asked for before its batches were halved; None when they were not.
    """

    NOTE = ".out-of-memory.json"

    def __init__(self, folder: str | Path, batch_size: int, halved_from: Mapping[str, Any] | None = None) -> None:
        self.note = Path(folder) / self.NOTE
        self.batch_size = batch_size
        self.halved_from = halved_from

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the note, whichever rank this is."""
        if self.halved_from or trainer.state.fn != "fit" or not is_out_of_memory(exception):
            return
        launcher = trainer.strategy.launcher
        by_script = isinstance(launcher, SubprocessScriptLauncher)
        by_lightning = type(getattr(launcher, "cluster_environment", None)) is LightningEnvironment
        foreign = (by_script and not by_lightning) or trainer.num_nodes > 1
        told = {"rank": trainer.global_rank, "restart": by_script, "foreign": foreign}
        write_atomic(self.note, json.dumps(told))
        end = time.monotonic() + PATIENCE
        while by_script and trainer.global_rank > 0 and self.note.exists() and time.monotonic() < end:
            time.sleep(0.1)

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints; the name that the class had first, so that older checkpoints load."""
        return "OomBackoff"

    def state_dict(self) -> dict[str, int]:
        """Return the size of the batches that are counted."""
        return {"batch_size": self.batch_size}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batches that are done in the size of now."""
        before = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("batch_size", self.batch_size)
        if before != self.batch_size:
            recount(checkpoint["loops"]["fit_loop"], before, self.batch_size)


def recount(loop: dict[str, Any], before: int, now: int) -> None:
    """Change the counters of a fit loop's state from batches of one size to batches of another.

    Args:
        loop: What Lightning saves of its fit loop.
        before: Examples a batch when it was saved.
        now: Examples a batch from here on.
    """
    progress = loop["epoch_loop.batch_progress"]
    more = math.ceil(progress["current"]["ready"] * before / now) - progress["current"]["ready"]
    for counters in (progress["total"], progress["current"]):
        # all by the same: Lightning tells from their differences where in a batch the state was saved
        counters.update({name: done + more for name, done in counters.items()})
    loaders = loop["state_dict"].get("combined_loader")
    for state in loaders if isinstance(loaders, list) else []:
        if isinstance(state, dict) and state.get("batch_size"):
            state["batches"] = math.ceil(state["batches"] * before / now)
            state["batch_size"] = math.ceil(state["batch_size"] * now / before)
