"""Stop a run in which one rank's epoch or training ends before another's, before their collectives mismatch.

ranks/<node>.batches    for each rank of a node 8 bytes that the ranks share: its `Progress`
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.lightning import call_at_batch_start, is_last_batch, stops_early
from fulgurite.core.context import setting
from fulgurite.core.errors import RankFailed, UserError
from fulgurite.distributed.supervision.failures import FAILURES_DIR

SLOT_BYTES = 8
POLL_SECONDS = 0.001
RUNNING, EPOCH_ENDED, FINISHED = range(3)
AGREE = "on all ranks, e.g. by self.trainer.strategy.reduce_boolean_decision"


class Progress(NamedTuple):
    """How far a rank is."""

    number: int  # of the epoch, from 1 on; 0 before the first
    begun: int  # batches of the epoch that were begun
    phase: int

    def to_slot(self) -> int:
        """Return one integer, which a rank writes at once."""
        return self.number << 34 | self.begun << 2 | self.phase

    @classmethod
    def from_slot(cls, slot: int) -> Progress:
        """Return what `to_slot` encoded."""
        return cls(slot >> 34, slot >> 2 & 0xFFFFFFFF, slot & 3)


class EqualEpochEnds(Callback):
    """Compares at the end of each epoch how many batches the ranks of one machine train on, and whether all continue.

    A loader may end early, `on_train_batch_start` may return -1, and a callback may set `trainer.should_stop`, each on
    one rank only. The ranks write to shared memory: a collective would pair with that of another rank's next batch.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder, self.timeout = folder / FAILURES_DIR, timeout
        self._slots: Any = None  # a memoryview of integers, one per rank of this node
        self._own = 0  # position of this rank
        self._compared = 0  # number of the last epoch whose end was compared

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_slots": None}  # shared memory cannot be copied

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share memory with the other ranks; `RequireBatches` then waits for all of them."""
        self._own, self._compared = trainer.local_rank, trainer.current_epoch
        with suppress(OSError, ValueError):  # a full disk, or a file system without shared memory
            self._slots = _open_slots(self._file(trainer), trainer.num_devices, self._own)
        call_at_batch_start(trainer, lambda epoch, begun: self._write(epoch + 1, begun, RUNNING))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this rank continues."""
        self._write(trainer.current_epoch + 1, 0, RUNNING)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare at the last batch, whose validation follows."""
        if is_last_batch(trainer):
            self._compare_batches(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare before the validation that follows a stop amid an epoch."""
        if not trainer.sanity_checking and stops_early(trainer):
            self._compare_batches(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare where an epoch ended without a last batch."""
        self._compare_batches(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks end the training, and delete the file.

        Raises:
            UserError: Another rank trains one more epoch.
        """
        number = self._compared + 1
        self._write(number, 0, FINISHED)
        for peer in self._peers():
            state = self._wait(trainer, peer, Progress(number, 0, RUNNING))
            if state.phase != FINISHED:
                rank = _rank_of(trainer, peer)
                raise UserError(
                    f"trainer.should_stop: ends the training after epoch {number - 2} on rank {trainer.global_rank} "
                    f"and not on rank {rank}. Set it {AGREE}."
                )
        self._slots = None
        with suppress(OSError):
            self._file(trainer).unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _compare_batches(self, trainer: Trainer) -> None:
        """Compare the batches of the epoch once, when it ends on this rank.

        Raises:
            UserError: Another rank began more or fewer batches.
        """
        number, (begun, _) = trainer.current_epoch + 1, _batches(trainer)
        if number == self._compared:
            return
        self._compared = number
        self._write(number, begun, EPOCH_ENDED)
        for peer in self._peers():
            state = self._wait(trainer, peer, Progress(number, begun, EPOCH_ENDED))
            if state.number == number and state.begun != begun and (state.phase or state.begun > begun):
                raise UserError(_reason(trainer, begun, _rank_of(trainer, peer), state.begun))

    def _write(self, number: int, begun: int, phase: int) -> None:
        if self._slots is not None:
            self._slots[self._own] = Progress(number, begun, phase).to_slot()

    def _peers(self) -> range:
        return range(0 if self._slots is None else len(self._slots))

    def _wait(self, trainer: Trainer, peer: int, least: Progress) -> Progress:
        """Wait until a rank has come as far, or ended the epoch before; return its progress."""
        latest = time.monotonic() + self.timeout
        while (state := Progress.from_slot(self._slots[peer])) < least:
            if state.number == least.number and state.phase:
                break
            if time.monotonic() > latest:
                longer = setting("distributed.rank_timeout_seconds")
                raise RankFailed(
                    f"rank {_rank_of(trainer, peer)} did not end epoch {least.number - 1} within {self.timeout:g} s "
                    f"after rank {trainer.global_rank}. Raise {longer}, or stop {AGREE}."
                )
            time.sleep(POLL_SECONDS)
        return state

    def _file(self, trainer: Trainer) -> Path:
        return self.folder / f"{trainer.node_rank}.batches"


def _open_slots(file: Path, size: int, own: int) -> Any:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.ftruncate(descriptor, size * SLOT_BYTES)
        os.lseek(descriptor, own * SLOT_BYTES, os.SEEK_SET)
        os.write(descriptor, bytes(SLOT_BYTES))  # a hole in the file could not be filled later on a full disk
        return memoryview(mmap.mmap(descriptor, size * SLOT_BYTES)).cast("q")
    finally:
        os.close(descriptor)


def _rank_of(trainer: Trainer, position: int) -> int:
    return trainer.node_rank * trainer.num_devices + position


def _batches(trainer: Trainer) -> tuple[int, int]:
    """Return the batches of this epoch that were begun and that were fetched."""
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return current.started, current.ready


def _reason(trainer: Trainer, begun: int, peer: int, of_peer: int) -> str:
    """Say which rank ended its epoch first, why, and what to write."""
    epoch, rank, is_first = trainer.current_epoch, trainer.global_rank, of_peer > begun
    if is_first and begun < _batches(trainer)[1]:
        return (
            f"model: on_train_batch_start returned -1 at batch {begun} of epoch {epoch} on rank {rank} and not on rank "
            f"{peer}. Return the same {AGREE}."
        )
    if is_first and trainer.should_stop:
        return (
            f"trainer.should_stop: is set after {begun} batches of epoch {epoch} on rank {rank} and not on rank "
            f"{peer}. Set it {AGREE}."
        )
    few, many = sorted([(begun, rank), (of_peer, peer)])
    return (
        f"data: epoch {epoch} has {few[0]} training batches on rank {few[1]} and more on rank {many[1]}. "
        "Set trainer.limit_train_batches to the smallest number, or give each rank as many."
    )
