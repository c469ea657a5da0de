"""A data set that changes its length between epochs resumes exactly on two ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.callbacks import LastCheckpoint
from tests.support.cli import WARM
from tests.support.multirank import free_port
from tests.support.quiet_trainer import fit_hardened
from tests.support.shapes.keeping import KeepingData, Resize
from tests.support.shapes.models import Net


class Seen(Callback):
    """Writes the examples of each batch to a file, and ends the training before a step.

    Args:
        file: Gets a line per batch.
        stop_at: A step; -1: none.
    """

    def __init__(self, file: Path, stop_at: int) -> None:
        self.file, self.stop_at = file, stop_at

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Raise what Lightning does not catch."""
        if trainer.global_step == self.stop_at:
            raise KeyboardInterrupt
        with self.file.open("a") as file:
            file.write(f"{trainer.current_epoch} {batch_idx} {batch[2].tolist()}\n")


def _train_rank(rank: int, port: int, folder: str, by: int, stop_at: int) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.manual_seed(3)
    run, model = Path(folder), Net()
    last = run / "last.ckpt"
    callbacks = [Resize(by), Seen(run / f"seen-{rank}", stop_at), LastCheckpoint(run, every_n_train_steps=1)]
    settings: dict[str, Any] = {"devices": 2, "strategy": "ddp", "max_epochs": 3, "num_sanity_val_steps": 0}
    data = KeepingData("resized", used=56 if by < 0 else 24)
    switches = {"supervise_ranks": False}
    source = last if last.exists() else None
    fit_hardened(model, data, run, callbacks, ckpt_path=source, switches=switches, **settings)
    torch.save(model.state_dict(), run / f"weights-{rank}.pt")


def _train(folder: Path, by: int, stop_at: int = -1) -> None:
    folder.mkdir(exist_ok=True)
    port = free_port()
    ranks = [WARM.Process(target=_train_rank, args=(rank, port, str(folder), by, stop_at)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("by", "stop_at"), [(-12, 6), (-12, 4), (12, 3)])
def test_two_ranks_resume_a_data_set_that_changed_its_length(by: int, stop_at: int, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    _train(straight, by)
    _train(stopped, by, stop_at)
    assert not (stopped / "weights-0.pt").exists()
    _train(stopped, by)
    # where a data set grows, Lightning trains on as many batches as it counted when it made the loader
    num_batches = 9 if by < 0 else 6
    for rank in (0, 1):
        lines = (straight / f"seen-{rank}").read_text().splitlines()
        assert len(lines) == num_batches
        assert [line.split()[:2] for line in lines][4 if by < 0 else 2] == ["1", "0"]
        assert (stopped / f"seen-{rank}").read_text().splitlines() == lines
        weights = [torch.load(folder / f"weights-{rank}.pt") for folder in (straight, stopped)]
        assert all(map(torch.equal, weights[0].values(), weights[1].values()))
