"""Record edits and refusals of a run: `live.jsonl`, `live.status.yaml`, loggers and log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.compat.lightning import steps_before_batch
from fulgurite.core.errors import FulguriteError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import hide_secrets, without_secrets
from fulgurite.live.document.history import Edit, Status, append, edits_of, read_entries, rewrite
from fulgurite.live.document.keys import Document
from fulgurite.live.document.watcher import Received
from fulgurite.runs.layout import LIVE_HISTORY
from fulgurite.runs.run_directory import utc_now

log = RankedLogger(__name__)


class Recorder:
    """The records of one run, which rank 0 writes."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.folder = folder
        self.observers: list[Callable[[str, str, float], None]] = []  # called with source, result and seconds
        self._received = 0.0  # when the newest document was taken
        self.status = Status(sources=[hide_secrets(source) for source in sources])

    def note(self, trainer: Trainer, **fields: Any) -> None:
        """Set fields of the status, and write it."""
        vars(self.status).update(fields)
        if not trainer.is_global_zero:
            return
        self.status.epoch, self.status.step = trainer.current_epoch, trainer.global_step
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.status.write(self.folder)
        except OSError as error:
            log.warning("live: the status cannot be written (%s). The run continues.", error)

    def edit(self, trainer: Trainer, received: Received, changed: Document, commands: dict[str, int]) -> Edit:
        """Return the edit that a document makes before the present batch."""
        self.status.version, self._received = received.version, time.monotonic()
        return self.stamped(trainer, Edit(0, 0, 0, changed, commands, received.document, received.source, utc_now()))

    def stamped(self, trainer: Trainer, edit: Edit) -> Edit:
        """Return an edit with the position of the present batch, which an accumulation may have put off."""
        loop = trainer.fit_loop
        return replace(edit, batch=loop.total_batch_idx, step=trainer.global_step, epoch=trainer.current_epoch)

    def refuse(self, trainer: Trainer, source: str, version: str, reasons: Sequence[str]) -> None:
        """Record why an edit was refused."""
        self._notify(source, "failure")
        if not trainer.is_global_zero:
            return
        shown = [hide_secrets(reason) for reason in reasons]
        for reason in shown:
            log.warning("live: refused, nothing is changed: %s", reason)
        refusal = {"time": utc_now(), "source": source, "reasons": shown}
        self.note(trainer, version=version, result="refused", refused=refusal)
        self._append({"refused": shown, "step": trainer.global_step, "time": refusal["time"], "source": source})

    def record(self, trainer: Trainer, edit: Edit, *, is_repeated: bool) -> None:
        """Record an edit that was applied; `live.jsonl` has a repeated one already."""
        numbers = {f"live/{key}": float(value) for key, value in edit.document.items() if type(value) in {int, float}}
        for logger in trainer.loggers:
            logger.log_metrics({**numbers, "epoch": trainer.current_epoch}, steps_before_batch(trainer))
        self._notify(edit.source, "success")
        if not trainer.is_global_zero:
            return
        log.info("live: step %d: %s", edit.step, edit.describe())
        self.note(trainer, result="applied", document=dict(edit.document))
        if not is_repeated:
            self._append(vars(edit))

    def _notify(self, source: str, result: str) -> None:
        seconds = time.monotonic() - self._received if self._received else 0.0
        self._received = 0.0
        for observe in self.observers:
            observe(source, result, seconds)

    def edits_after(self, begun: int, count: int) -> list[Edit]:
        """Return the edits in `live.jsonl` from batch `begun` on that are not in a checkpoint with `count` edits."""
        try:
            edits = edits_of(read_entries(self.folder / LIVE_HISTORY))
        except FulguriteError as error:
            log.warning("live: %s The resumed run has the edits of its checkpoint only.", error)
            return []
        return [edit for edit in edits[count:] if edit.batch >= begun]

    def keep(self, trainer: Trainer, count: int) -> None:
        """Drop all but the first `count` edits of `live.jsonl`, and the refusals after them."""
        kept: list[dict[str, Any]] = []
        if not (trainer.is_global_zero and (self.folder / LIVE_HISTORY).is_file()):
            return
        for entry in read_entries(self.folder / LIVE_HISTORY):
            count -= "refused" not in entry
            if count < 0:
                break
            kept.append(entry)
        rewrite(self.folder, kept)

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            append(self.folder, without_secrets(entry))
        except (OSError, ValueError) as error:
            log.warning("live: %s: cannot be written (%s). The checkpoint has the edits.", LIVE_HISTORY, error)
