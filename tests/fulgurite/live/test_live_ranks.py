"""On two ranks an edit is applied before the same step, or refused on both."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.live.callback import LiveControl
from fulgurite.live.document.history import edits_of, read_entries
from tests.support.cli import WARM
from tests.support.live import At, Task, is_equal, run

pytestmark = pytest.mark.slow
GOOD = "lr_scale: 0.5\nweight_decay: 0.3\n"
MORE = f"{GOOD}max_epochs: 12\npatience: 8\ncheckpoint: 1\n"
TEXTS = {
    3: GOOD,
    6: "lr_scal: 0.1\n",
    9: "lr_scale: 0.\n",
    12: "max_epochs: 1\nlr_scale: 0.1\n",
    14: "model.rate: 2\nlr_scale: 0.1\n",  # fails on rank 1 only
    17: MORE,
}
KILLED_AT = 29  # in the eighth epoch, of six in the config


class Ranked(Task):
    """OneCycleLR for the six epochs of the config; takes no live change on rank 1."""

    def __init__(self) -> None:
        super().__init__(lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=24))
        self.rate = 1

    def on_live_change(self, changed: dict[str, Any]) -> None:
        if self.global_rank == 1:
            raise ValueError("not on this rank")
        self.rate = changed["rate"] or 1


class Keep(Callback):
    """Saves what each rank has at its end, or kills both before a batch."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.folder, self.kill_at = folder, kill_at

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        live = next(each for each in vars(trainer)["callbacks"] if isinstance(each, LiveControl))
        kept = {
            "weights": pl_module.state_dict(),
            "edits": [(edit.batch, edit.step) for edit in live.history],
            "document": live.document,
            "step": trainer.global_step,
            "rate": pl_module.rate,
        }
        torch.save(kept, self.folder / f"rank-{trainer.global_rank}.pt")


def train(folder: Path, replay: Path | None, kill_at: int | None, *, resumes: bool) -> None:
    """Train on two ranks in this process, which has started nothing yet."""
    os.environ["OMP_NUM_THREADS"] = "1"
    run(
        folder,
        Ranked(),
        live=LiveControl(folder, poll_seconds=0.02, replay=replay),
        callbacks=[Keep(folder, kill_at), *([At(folder, TEXTS)] if replay is None else [])],
        max_epochs=6,
        save_every=3,
        strategy="ddp_fork",
        devices=2,
        ckpt_path=folder / "checkpoints/last.ckpt" if resumes else None,
    )


def trained(
    folder: Path, replay: Path | None = None, kill_at: int | None = None, *, resumes: bool = False
) -> list[Any]:
    """Train in a new process, and return what each rank kept; nothing of a killed run."""
    folder.mkdir(parents=True, exist_ok=True)
    process = WARM.Process(target=train, args=(folder, replay, kill_at), kwargs={"resumes": resumes})
    process.start()
    process.join(180)
    assert (process.exitcode == 0) == (kill_at is None)
    files = [folder / f"rank-{rank}.pt" for rank in range(2)]
    return [torch.load(file, weights_only=True) for file in files if file.is_file()]


def check_ranks(ranks: list[Any]) -> None:
    """Check that both ranks did the same: the edits of `TEXTS` that are valid, ten epochs by patience."""
    assert is_equal(ranks[0]["weights"], ranks[1]["weights"])
    assert {name: ranks[0][name] for name in ranks[0] if name != "weights"} == {
        name: ranks[1][name] for name in ranks[1] if name != "weights"
    }
    assert ranks[0]["document"] == {
        "lr_scale": 0.5,
        "weight_decay": 0.3,
        "max_epochs": 12,
        "patience": 8,
        "checkpoint": 1,
    }
    assert ranks[0]["step"] == 9 * 4  # not six epochs, not twelve
    assert ranks[0]["rate"] == 1
    assert len(ranks[0]["edits"]) == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Return a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trained(folder)


def test_edits_are_applied_at_one_step_and_bad_ones_refused_with_reasons(whole: tuple[Path, list[Any]]) -> None:
    folder, ranks = whole
    check_ranks(ranks)
    entries = read_entries(folder / "live.jsonl")
    assert [(edit.batch, edit.step) for edit in edits_of(entries)] == ranks[0]["edits"]
    reasons = [" ".join(entry["refused"]) for entry in entries if "refused" in entry]
    assert reasons[:2] == [
        "lr_scal=0.1: is not a live key. Did you mean 'lr_scale'?",
        "lr_scale=0.0: is out of range. Set a number above 0.",
    ]
    assert "max_epochs=1: the run is in epoch" in reasons[2]
    assert reasons[3].startswith("rank 1: lr_scale=0.1, weight_decay=removed, model.rate=2: on_live_change refused it")
    assert "ValueError: not on this rank" in reasons[3]
    assert len(reasons) == 4
    saved = ranks[0]["edits"][1][1] + 1
    assert saved <= int(next((folder / "checkpoints").glob("live-*.ckpt")).stem.removeprefix("live-")) <= saved + 2


def test_a_replay_in_a_new_run_is_bit_identical(whole: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, ranks = whole
    again = trained(tmp_path / "again", folder / "live.jsonl")
    check_ranks(again)
    assert again[0]["edits"] == ranks[0]["edits"]
    assert is_equal(again[0]["weights"], ranks[0]["weights"])


def test_a_killed_run_resumes_and_its_replay_is_bit_identical(tmp_path: Path) -> None:
    assert trained(tmp_path / "killed", kill_at=KILLED_AT) == []
    resumed = trained(tmp_path / "killed", resumes=True)
    check_ranks(resumed)
    again = trained(tmp_path / "again", tmp_path / "killed/live.jsonl")
    assert again[0]["edits"] == resumed[0]["edits"]
    assert is_equal(again[0]["weights"], resumed[0]["weights"])
