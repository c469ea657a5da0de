"""Stop a run in which one rank's training stream ends before another's, before their collectives mismatch.

ranks/<rank>.batches    epoch, batches trained on, 1 if the epoch ends
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.lightning import is_last_batch, train_loaders
from fulgurite.core.errors import UserError
from fulgurite.distributed.supervision.failures import FAILURES_DIR


class EqualStreamEnds(Callback):
    """Compares the batches of loaders without a length at the end of each epoch, on ranks of one machine.

    It uses files: a collective would pair with that of another rank's next batch.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder, self.timeout = folder / FAILURES_DIR, timeout
        self._has_streams = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the count of an earlier start; `RequireBatches` then waits for all ranks."""
        self.on_train_end(trainer, pl_module)
        self._has_streams = trainer.num_nodes == 1 and None in map(sized_len, train_loaders(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the count, and raise a `UserError` where another rank has more batches in this epoch."""
        if not self._has_streams:
            return
        epoch, count, ends = mine = (trainer.current_epoch, batch_idx + 1, int(is_last_batch(trainer)))
        self.folder.mkdir(exist_ok=True)
        self._file(trainer.global_rank).write_text(f"{epoch} {count} {ends}")
        latest = time.monotonic() + self.timeout
        for peer in range(trainer.world_size) if ends else ():
            while (state := self._read(peer)) < mine[:2] and time.monotonic() < latest:
                time.sleep(0.002)
            if state[:1] == (epoch,) and state[1] >= count and state != mine:
                raise UserError(
                    f"data: epoch {epoch} has {count} training batches on rank {trainer.global_rank} and more on rank "
                    f"{peer}. Set trainer.limit_train_batches to the smallest number, or give each rank as many."
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the count."""
        with suppress(OSError):
            self._file(trainer.global_rank).unlink()
            self.folder.rmdir()

    def _file(self, rank: int) -> Path:
        return self.folder / f"{rank}.batches"

    def _read(self, rank: int) -> tuple[int, ...]:
        with suppress(OSError):
            return tuple(map(int, self._file(rank).read_text().split()))
        return ()
