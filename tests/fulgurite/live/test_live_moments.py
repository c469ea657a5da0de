"""Edits that come while a validation runs, amid an accumulation of gradients, and after the last step."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.live import ranks
from fulgurite.live.callback import LiveControl
from fulgurite.live.document.history import read_entries, read_status
from tests.support.cli import WARM
from tests.support.live import BATCHES, Trace, deliver, is_equal, run, weights_of

EPOCHS, ACCUMULATED = 5, 2
VALIDATING, ACCUMULATING, LATE = "lr_scale: 0.5\n", "lr_scale: 0.5\nweight_decay: 0.3\n", "lr_scale: 0.1\n"
REFUSED = "lr_scale=0.1, weight_decay=removed: came after the last step. Resume the run, and set it there."


class Moments(Callback):
    """Writes an edit while the first validation runs, one amid an accumulation, and one after the last step."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.written = folder, 0

    def _write(self, trainer: Trainer, number: int, text: str) -> None:
        if self.written == number:
            self.written += 1
            if trainer.is_global_zero:
                deliver(trainer, self.folder, text)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, 0, VALIDATING)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (2, 0):
            self._write(trainer, 1, ACCUMULATING)
        elif trainer.current_epoch == EPOCHS - 1 and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._write(trainer, 2, LATE)


def check_steps(kept: dict[str, Any], start: int, edits: list[tuple[int, int]]) -> None:
    """Check that each edit holds from its step on, and that the last one changed nothing."""
    assert kept["edits"] == edits
    (_, scaled), (_, decayed) = edits
    assert start <= scaled < decayed < len(kept["rates"]) == len(kept["decays"])
    assert [rate for rate, _ in kept["rates"]] == [0.005 if step >= scaled else 0.01 for step in range(kept["step"])]
    assert [decay for decay, _ in kept["decays"]] == [0.3 if step >= decayed else 0.1 for step in range(kept["step"])]


def kept_of(trainer: Trainer, live: LiveControl, trace: Trace) -> dict[str, Any]:
    """Return what a process has at its end."""
    return {
        "weights": weights_of(trainer),
        "edits": [(edit.batch, edit.step) for edit in live.history],
        "rates": trace.rates,
        "decays": trace.decays,
        "step": trainer.global_step,
    }


def check_late(folder: Path) -> None:
    """Check that the last edit is recorded as refused, with its reason."""
    assert read_entries(folder / "live.jsonl")[-1]["refused"] == [REFUSED]
    status = read_status(folder)
    assert (status["state"], status["result"]) == ("ended", "refused")
    assert status["document"] == {"lr_scale": 0.5, "weight_decay": 0.3}


def test_one_process_applies_them_before_the_next_step_that_begins_or_says_why_not(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_epochs": EPOCHS, "accumulate_grad_batches": ACCUMULATED}
    first = kept_of(*run(tmp_path, callbacks=[Moments(tmp_path)], **settings))
    steps = BATCHES // ACCUMULATED
    amid = 2 * BATCHES + ACCUMULATED  # the first batch after the step in whose middle the edit came
    check_steps(first, steps, [(BATCHES, steps), (amid, 2 * steps + 1)])
    check_late(tmp_path)
    live = LiveControl(tmp_path / "again", replay=tmp_path / "live.jsonl")
    again = kept_of(*run(tmp_path / "again", live=live, **settings))
    assert is_equal(first.pop("weights"), again.pop("weights"))
    assert first == again


def train(folder: Path, replay: Path | None) -> None:
    """Train on two ranks in this process, which has started nothing yet."""
    os.environ["OMP_NUM_THREADS"] = "1"
    run(
        folder,
        live=LiveControl(folder, poll_seconds=0.02, replay=replay),
        callbacks=[Keep(folder), *([Moments(folder)] if replay is None else [])],
        max_epochs=EPOCHS,
        accumulate_grad_batches=ACCUMULATED,
        strategy="ddp_fork",
        devices=2,
    )


class Keep(Callback):
    """Saves what each rank has at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {type(each): each for each in vars(trainer)["callbacks"]}
        kept = kept_of(trainer, found[LiveControl], found[Trace])
        torch.save(kept, self.folder / f"rank-{trainer.global_rank}.pt")


def trained(folder: Path, target: Any, *args: Any) -> list[Any]:
    """Train in a new process, and return what each rank kept."""
    folder.mkdir(parents=True, exist_ok=True)
    process = WARM.Process(target=target, args=(folder, *args))
    process.start()
    process.join(180)
    assert process.exitcode == 0
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_ranks_apply_them_at_one_step_and_a_replay_is_bit_identical(tmp_path: Path) -> None:
    both = trained(tmp_path / "first", train, None)
    steps = BATCHES // 2 // ACCUMULATED  # of an epoch
    edits = both[0]["edits"]
    assert all(batch == ACCUMULATED * step for batch, step in edits)  # never amid an accumulation
    assert edits[1][1] > 2 * steps  # after the step in whose middle it came
    for kept in both:
        check_steps(kept, steps, edits)
    check_late(tmp_path / "first")
    again = trained(tmp_path / "again", train, tmp_path / "first/live.jsonl")
    weights = [kept.pop("weights") for kept in (*both, *again)]
    assert all(is_equal(weights[0], other) for other in weights)
    assert [*both, *again] == [both[0]] * 4


def count(folder: Path, seconds: float) -> None:
    """Train on two ranks without an edit, and keep how many numbers each of their agreements took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sizes: list[int] = []

    def counted(plain: Any) -> Any:
        def collective(value: Any, *args: Any, **more: Any) -> Any:
            if sys._getframe(1).f_globals["__name__"] == ranks.__name__:
                sizes.append(value.numel())
            return plain(value, *args, **more)

        return collective

    for name in ("broadcast", "all_reduce", "all_gather_object", "broadcast_object_list"):
        setattr(torch.distributed, name, counted(getattr(torch.distributed, name)))

    class Count(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            torch.save({"sizes": sizes, "step": trainer.global_step}, folder / f"rank-{trainer.global_rank}.pt")

    live = LiveControl(folder, poll_seconds=seconds)
    run(folder, live=live, callbacks=[Count()], max_epochs=EPOCHS, strategy="ddp_fork", devices=2)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "most"), [(0.001, EPOCHS * BATCHES // 2), (1e9, 1)])
def test_two_ranks_agree_by_two_integers_a_step_at_most(seconds: float, most: int, tmp_path: Path) -> None:
    for kept in trained(tmp_path, count, seconds):
        assert kept["step"] == EPOCHS * BATCHES // 2
        assert set(kept["sizes"]) == {2}
        assert 1 <= len(kept["sizes"]) <= most
