"""A killed run resumes with its edits, those after its checkpoint too, and ends bit-identical to one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.core.errors import UserError
from fulgurite.live.callback import LiveControl
from fulgurite.live.document.history import live_value, read_entries
from fulgurite.resume.optimizer_settings import OverrideRestoredSettings
from tests.support.live import At, Task, is_equal, run, weights_of

pytestmark = pytest.mark.slow
TEXTS = {
    3: "lr_scale: 0.5\nmax_epochs: 4\npatience: 7\nweight_decay: 0.3\n",
    12: "lr_scale: 0.2\nmax_epochs: 4\ncheckpoint: 1\nmodel.rate: 3\n",
}


class Killed(Exception):
    pass


class KillAt(Callback):
    """Raises before a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise Killed


class Rated(Task):
    """OneCycleLR of two epochs, and a factor of the loss that is changed live."""

    def __init__(self) -> None:
        super().__init__(lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=16))
        self.rate = 1.0

    def on_live_change(self, changed: dict[str, Any]) -> None:
        self.rate = changed["rate"] or 1.0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.rate * super().training_step(batch, batch_idx)


def interrupted(folder: Path, at: int, save_every: int) -> Path:
    """Train until a batch, and return the last checkpoint."""
    with pytest.raises(Killed):
        run(folder, Rated(), callbacks=[At(folder, TEXTS), KillAt(at)], max_epochs=2, save_every=save_every)
    return folder / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Return the weights of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    trainer, live, _ = run(folder, Rated(), callbacks=[At(folder, TEXTS)], max_epochs=2)
    assert trainer.global_step == 32
    assert [edit.batch for edit in live.history] == [4, 13]
    return weights_of(trainer)


# in the first epoch; right after an edit; from before an edit; after the end of the config's epochs
@pytest.mark.parametrize(("at", "save_every"), [(7, 5), (15, 14), (14, 11), (27, 25)])
def test_a_resumed_run_is_bit_identical(at: int, save_every: int, whole: Any, tmp_path: Path) -> None:
    path = interrupted(tmp_path, at, save_every)
    later = {batch: text for batch, text in TEXTS.items() if batch >= at}
    trainer, live, _ = run(
        tmp_path, Rated(), callbacks=[At(tmp_path, later)], max_epochs=2, ckpt_path=path, save_every=save_every
    )
    assert [edit.batch for edit in live.history] == [4, 13]
    assert is_equal(whole, weights_of(trainer))
    assert [entry["batch"] for entry in read_entries(tmp_path / "live.jsonl")] == [4, 13]
    assert live_value(tmp_path, "max_epochs") == 4


def test_a_document_that_changed_since_replaces_the_later_edits(tmp_path: Path) -> None:
    path = interrupted(tmp_path, 14, 11)
    (tmp_path / "live.yaml").write_text("lr_scale: 0.1\nmax_epochs: 3\nstop_after_step: 1\n")
    trainer, live, _ = run(tmp_path, Rated(), max_epochs=2, ckpt_path=path)
    assert trainer.global_step == 24  # the command was given while nothing trained
    assert [edit.batch for edit in live.history] == [4, 8]
    assert [entry["batch"] for entry in read_entries(tmp_path / "live.jsonl")] == [4, 8]


def test_a_run_that_a_command_stopped_continues(tmp_path: Path) -> None:
    texts = {3: "stop_after_step: 1\n"}
    trainer, _, _ = run(tmp_path, callbacks=[At(tmp_path, texts)], max_epochs=2)
    assert trainer.global_step == 5
    trainer, _, _ = run(tmp_path, max_epochs=2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert trainer.global_step > 5


def test_a_limit_that_the_config_of_the_resumed_run_changes_wins(tmp_path: Path, caplog: Any) -> None:
    path = interrupted(tmp_path, 7, 5)
    trainer, _, _ = run(tmp_path, Rated(), max_epochs=3, ckpt_path=path)
    assert trainer.global_step == 24


@pytest.mark.parametrize("apply", [[], ["model.optimizer.lr"]])
def test_a_learning_rate_that_the_resumed_run_sets_is_scaled(apply: list[str], tmp_path: Path) -> None:
    def make(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=40)

    with pytest.raises(Killed):
        run(tmp_path, Task(make), {2: {"lr_scale": 0.5}}, callbacks=[KillAt(7)], save_every=5)
    trace = run(
        tmp_path,
        Task(make),
        callbacks=[OverrideRestoredSettings([], apply)],
        ckpt_path=tmp_path / "checkpoints/last.ckpt",
        max_epochs=1,
    )[2]
    factor = 0.5 if apply else 0.5 + 0.5 * 5 / 40  # the schedule starts at the rate of the config
    assert trace.rates[5] == pytest.approx([0.5 * factor * 0.01, 0.5 * factor * 0.02])


@pytest.mark.parametrize(
    "state", [{}, {"document": {"max_epochs": "x"}, "history": []}, {"document": 1, "history": [1]}]
)
def test_a_checkpoint_with_an_invalid_state_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the live edits in the checkpoint are invalid"):
        LiveControl(tmp_path).load_state_dict(state)
