"""The callback that applies live edits, records them, and restores them when a run resumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.compat.lightning import call_after_batch
from fulgurite.compat.lightning_loaders import call_before_batch
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import without_secrets
from fulgurite.live.commands import Commands
from fulgurite.live.document.history import Edit, as_edit, edits_of, read_entries
from fulgurite.live.document.keys import Document, check, commands_of, diff
from fulgurite.live.document.watcher import Received, Watcher, name_of
from fulgurite.live.ranks import Ranks
from fulgurite.live.recorder import Recorder
from fulgurite.live.schedules import scale, slots_of
from fulgurite.live.settings import Settings
from fulgurite.live.transaction import apply_edit, problems_of
from fulgurite.runs.layout import LIVE_EDITS, LIVE_HISTORY

log = RankedLogger(__name__)


class LiveControl(Callback):
    """Applies edits of a live document while a run trains, at one and the same optimizer step on all ranks.

    An edit is applied as a whole before a batch, or refused as a whole, with the reason in `live.status.yaml` and the
    log. Applied edits are in the checkpoint, in `live.jsonl` and in the loggers. A resumed run has the edits of its
    checkpoint, and repeats the later ones at their steps unless the document has changed since.

    Args:
        folder: The run directory, for `live.jsonl` and `live.status.yaml`.
        source: Where the document is: a file, or a URL of http, https, etcd or consul. Several: a later one wins. None:
            `live.yaml` in the folder.
        poll_seconds: Seconds between two reads of a source that cannot notify, and between two exchanges of the ranks.
        replay: The `live.jsonl` of another run, whose edits this run makes at their steps; then no source is read.

    Attributes:
        sources: The sources without credentials.
        reload_observers: Called after each edit with its source, `success` or `failure`, and the seconds it took.

    Raises:
        UserError: `poll_seconds` is not above 0.

    Example:
        >>> trainer = Trainer(callbacks=[LiveControl("run"), LastCheckpoint("run/checkpoints")])
    """

    def __init__(
        self,
        folder: str | Path,
        source: str | Sequence[str] | None = None,
        poll_seconds: float = 1.0,
        replay: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        sources = [source or str(self.folder / LIVE_EDITS)] if source is None or isinstance(source, str) else source
        if not poll_seconds > 0:
            raise UserError(f"callbacks.live.poll_seconds={poll_seconds}: is not above 0. Set e.g. 1.")
        self._addresses = [str(each) for each in sources]
        self.sources = [name_of(address) for address in self._addresses]
        self.poll_seconds = poll_seconds
        self.replay = replay
        self.document: Document = {}  # in force
        self.history: list[Edit] = []
        self._known: Document = {}  # the newest document that was accepted, also for a later step
        self._scheduled: list[Edit] = []  # of a replay or of the interrupted run, the next one first
        self._saved: dict[str, Any] = {}  # in the checkpoint that is loaded
        self._is_begun = False
        self._settings: Settings | None = None
        self._watcher: Watcher | None = None
        self._ranks: Ranks | None = None
        self._commands: Commands | None = None
        self._recorder = Recorder(self.folder, self.sources)
        self.reload_observers = self._recorder.observers  # of edits: called with source, result and seconds

    # state

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints, independent of the class's name."""
        return "LiveControl"

    def state_dict(self) -> dict[str, Any]:
        """Return what is in force, and all edits so far."""
        settings = self._settings
        if settings is None:
            return self._saved
        hidden: dict[str, Any] = without_secrets(
            {"document": self.document, "history": [vars(edit) for edit in self.history]}
        )
        return {
            **hidden,
            "start": settings.start,
            "scale": settings.scale,
            "rates": [slot.value for slot in slots_of(settings.trainer)],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts; a test or a validation needs none of it."""
        try:
            self.document, problems = check(state_dict["document"])
            self.history = [as_edit(entry) for entry in state_dict["history"]]
        except (KeyError, TypeError, AttributeError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        if problems:
            raise UserError(f"the live edits in the checkpoint are invalid ({problems[0]}). Resume from another one.")
        self._saved = state_dict

    # hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the settings of the config, before a checkpoint replaces them."""
        if stage == "fit":
            self._settings = Settings(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the limits of a resumed run, which Lightning compares with its progress before training."""
        assert self._settings is not None
        for key in self._settings.restore(self.document, self._saved.get("start", {})):
            log.info("live: the config has another trainer.%s than before, which replaces that of the edits", key)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to watch, on rank 0, and agree on the edits whose steps are known."""
        assert self._settings is not None
        if "weight_decay" in self.document:
            self._settings.start["weight_decay"] = self._saved["start"]["weight_decay"]
        else:
            self._settings.read_weight_decay()
        self._is_begun = False
        self._commands = Commands(trainer, self.folder)
        self._ranks = Ranks(trainer, self.poll_seconds) if trainer.world_size > 1 else None
        self._recorder.note(trainer, state="watching", document=dict(self.document))
        self._scheduled = self._read_scheduled(trainer)
        if self._ranks is not None:
            self._scheduled = self._ranks.broadcast(self._scheduled)
        self._known = self._scheduled[-1].document if self._scheduled else self.document
        call_after_batch(trainer, self, self._commands.after_batch)
        # on rank 0 only: the others get what it reads
        watches = trainer.is_global_zero and self.replay is None and not vars(trainer)["fast_dev_run"]
        self._watcher = Watcher(self._addresses, self.poll_seconds) if watches else None
        if self._watcher is not None:
            self._watcher.start()
        inbox = self._watcher.inbox if self._watcher is not None else ()
        call_before_batch(trainer, self, partial(self._before_batch, trainer, inbox))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End training here after a command."""
        if self._commands is not None:
            self._commands.after_epoch()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Undo the limits of a command, which a resumed run must not have, and end the watching."""
        if self._commands is not None:
            self._commands.end()
        self._refuse_late(trainer)
        self.teardown()
        self._recorder.note(trainer, state="ended")

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """End the watching."""
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = None

    on_exception = teardown

    # edits

    def _read_scheduled(self, trainer: Trainer) -> list[Edit]:
        """Return the edits of a replay, or those that the interrupted run made after the checkpoint; on rank 0."""
        if not trainer.is_global_zero:
            return []
        begun = trainer.fit_loop.total_batch_idx + 1
        if self.replay is not None:
            entries = read_entries(Path(self.replay), named=f"callbacks.live.replay={self.replay}")
            self._recorder.keep(trainer, len(self.history))
            return [edit for edit in edits_of(entries) if edit.batch >= begun]
        return self._recorder.edits_after(begun, len(self.history)) if self._saved or begun == 0 else []

    def _before_batch(self, trainer: Trainer, inbox: Sequence[Received]) -> None:
        ranks = self._ranks
        if ranks is None:
            is_due = bool(inbox)
        else:
            ranks.remaining -= 1
            is_due = ranks.remaining <= 0
        if self._is_begun and not is_due and not self._scheduled:
            return
        if trainer.fit_loop.batch_idx % trainer.accumulate_grad_batches:
            return  # amid an accumulation: the edit waits for the optimizer step
        if not self._is_begun:
            self._begin(trainer)
        while self._scheduled and self._scheduled[0].batch <= trainer.fit_loop.total_batch_idx:
            self._apply(trainer, self._scheduled.pop(0), is_repeated=self.replay is None)
        if is_due:
            while (edit := self._next(trainer)) is not None:
                self._apply(trainer, edit)

    def _next(self, trainer: Trainer) -> Edit | None:
        """Return the next edit that rank 0 took, on all ranks."""
        edit = self._take(trainer)
        return edit if self._ranks is None else self._ranks.share(edit)

    def _begin(self, trainer: Trainer) -> None:
        """Scale what was replaced since the checkpoint, such as the learning rate of `resume.apply`."""
        assert self._settings is not None
        self._is_begun = True
        factor = self._settings.scale = float(self._saved.get("scale", 1.0))
        if factor != 1:
            slots, saved = slots_of(self._settings.trainer), self._saved.get("rates", [])
            scale([slot for slot, value in zip(slots, saved, strict=False) if slot.value != value], factor)
        if self.document:
            log.info("live: in force: %s", ", ".join(f"{key}={value}" for key, value in self.document.items()))

    def _take(self, trainer: Trainer) -> Edit | None:
        """Return the next edit that this run can take, on rank 0; refused ones are recorded."""
        while self._watcher is not None and self._watcher.inbox:
            received = self._watcher.inbox.popleft()
            before = self._known | received.document if received.is_first else self._known
            commands = commands_of(before, received.document)
            if received.is_first and received.problems:
                self._known = {**self._known, **received.document}
            if received.problems:
                self._recorder.refuse(trainer, received.source, received.version, received.problems)
            elif not commands and not diff(self._known, received.document):
                self._known = received.document  # a counter may be lower
                self._recorder.note(trainer, version=received.version, result="unchanged")
            else:
                edit = self._recorder.edit(trainer, received, diff(self.document, received.document), commands)
                if not (found := problems_of(trainer, self._settings, edit)):
                    return edit
                self._recorder.refuse(trainer, received.source, received.version, found)
        return None

    def _refuse_late(self, trainer: Trainer) -> None:
        """Record on rank 0 the edits that came after the last step; no rank applies them."""
        while self._watcher is not None and self._watcher.inbox:
            received = self._watcher.inbox.popleft()
            commands = commands_of(self._known, received.document)
            changed = diff(self._known, received.document)
            edit = self._recorder.edit(trainer, received, changed, commands)
            late = [f"{edit.describe()}: came after the last step. Resume the run, and set it there."]
            if reasons := received.problems or (late if commands or changed else []):
                self._recorder.refuse(trainer, received.source, received.version, reasons)

    def _apply(self, trainer: Trainer, edit: Edit, *, is_repeated: bool = False) -> None:
        """Apply an edit on this rank; all ranks call it before the same batch."""
        assert self._settings is not None
        assert self._commands is not None
        edit = self._recorder.stamped(trainer, edit)
        reason, undo = apply_edit(trainer, self._settings, self.document, edit)
        if self._ranks is not None:
            reason = self._ranks.first_reason(reason)
        if reason:
            for function in reversed(undo):
                function()
            self._recorder.refuse(trainer, edit.source, self._recorder.status.version, [reason])
            return
        if not is_repeated and self.replay is None:
            self._drop_scheduled(trainer)
        self.document = dict(edit.document)
        if not self._scheduled:
            self._known = self.document
        self.history.append(edit)
        self._commands.run(edit.commands, is_resumed=is_repeated)
        self._recorder.record(trainer, edit, is_repeated=is_repeated)

    def _drop_scheduled(self, trainer: Trainer) -> None:
        """Forget the edits that the interrupted run made later: the document has changed since."""
        if self._scheduled:
            log.info(
                "live: the document changed since the interruption, so later edits in %s are dropped", LIVE_HISTORY
            )
            self._recorder.keep(trainer, len(self.history))
        self._scheduled = []
