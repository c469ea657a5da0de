"""Test that the README's plain Lightning script resumes bit-identically."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

import fulgurite
from fulgurite.callbacks import LastCheckpoint
from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.exact_resume.callback import ExactResume
from fulgurite.shutdown.graceful_stop import StopOnSignal
from tests.support.project import ROOT
from tests.support.quiet_trainer import MadeData, fit_hardened

Ended = subprocess.CompletedProcess[str]
[SCRIPT] = re.findall(r"```python\n(.*?)```", (ROOT / "fulgurite/README.md").read_text(), re.DOTALL)
SIGNAL_AT = """
from lightning.pytorch.callbacks import Callback
import os
class SignalAt(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == {step}:
            os.kill(os.getpid(), {number})
trainer.callbacks.insert(0, SignalAt())
trainer.fit("""


def run_script(
    folder: Path, step: int = 0, number: int = 0, *, hardened: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder; with a signal, send it after an optimizer step."""
    script = SCRIPT if hardened else re.sub(r"^fulgurite\.harden.*\n", "", SCRIPT, flags=re.MULTILINE)
    if step:
        script = script.replace("trainer.fit(", SIGNAL_AT.format(step=step, number=int(number)).lstrip(), 1)
    folder.mkdir(exist_ok=True)
    (folder / "plain.py").write_text(script)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "plain.py"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that the script saved."""
    loaded: dict[str, torch.Tensor] = torch.load(folder / "run/weights.pt", weights_only=True)
    return loaded


def test_the_example_is_short() -> None:
    assert len(SCRIPT.splitlines()) <= 40
    assert "hydra" not in SCRIPT


@pytest.mark.slow
def test_the_example_killed_and_terminated_ends_bit_identical(tmp_path: Path) -> None:
    assert run_script(tmp_path / "straight").returncode == 0
    killed = run_script(tmp_path / "stopped", 41, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    terminated = run_script(tmp_path / "stopped", 77, signal.SIGTERM)
    assert terminated.returncode == 143, terminated.stderr
    assert "SIGTERM: saved at step 77 in checkpoints/last.ckpt\n" in terminated.stderr
    assert "Traceback" not in terminated.stderr
    resumed = run_script(tmp_path / "stopped")
    assert resumed.returncode == 0, resumed.stderr
    straight, stopped = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


@pytest.mark.slow
def test_without_harden_the_comparison_finds_other_weights(tmp_path: Path) -> None:
    assert run_script(tmp_path / "straight", hardened=False).returncode == 0
    assert run_script(tmp_path / "stopped", 41, signal.SIGKILL, hardened=False).returncode == -signal.SIGKILL
    assert run_script(tmp_path / "stopped", hardened=False).returncode == 0
    straight, stopped = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert not all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_each_part_has_a_switch(tmp_path: Path) -> None:
    def trainer(**switches: Any) -> Trainer:
        plain = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        return fulgurite.harden(
            plain, LightningDataModule(), run_dir=tmp_path, seed=1, handle_signals=False, **switches
        )

    def kinds(trainer: Trainer) -> set[type]:
        return {type(callback) for callback in vars(trainer)["callbacks"]}

    assert ExactResume in kinds(trainer())
    assert ExactResume not in kinds(trainer(exact_resume=False))
    assert StopOnSignal not in kinds(trainer())
    io = trainer(async_checkpoints=True).strategy.checkpoint_io
    assert isinstance(io, AsyncVerifiedCheckpointIO)
    default = Trainer(accelerator="cpu", logger=False).strategy.checkpoint_io
    assert type(trainer(verified_checkpoints=False).strategy.checkpoint_io) is type(default)


def test_a_second_call_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    fulgurite.harden(trainer, LightningDataModule(), run_dir=tmp_path, seed=1, handle_signals=False)
    with pytest.raises(fulgurite.UserError, match="hardened already"):
        fulgurite.harden(trainer, LightningDataModule(), run_dir=tmp_path, seed=1, handle_signals=False)


def test_bare_data_loaders_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **quiet)
    fulgurite.harden(trainer, LightningDataModule(), run_dir=tmp_path, seed=1, handle_signals=False)
    trainer.fit(BoringModel(), DataLoader(RandomDataset(32, 4)))
    assert "exact resume does not control the data order without a data module" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_without_a_last_checkpoint_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = MadeData(lambda: DataLoader(RandomDataset(32, 4)))
    settings: dict[str, Any] = {"max_epochs": 1}
    line = "the checkpoints of this run may not resume exactly: it has no LastCheckpoint. Add one."
    best = ModelCheckpoint(tmp_path / "best", save_top_k=0)
    fit_hardened(BoringModel(), data, tmp_path, [best], **settings)
    assert caplog.text.count(line) == 1
    caplog.clear()
    fit_hardened(BoringModel(), data, tmp_path, [], enable_checkpointing=False, **settings)
    fit_hardened(BoringModel(), data, tmp_path, [best, LastCheckpoint(tmp_path)], **settings)
    assert line not in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_that_is_not_exact_names_only_a_file_that_exists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = MadeData(lambda: DataLoader(RandomDataset(32, 4)))
    best = ModelCheckpoint(tmp_path / "best", filename="best")
    fit_hardened(BoringModel(), data, tmp_path, [best], max_epochs=1)
    loaded = tmp_path / "best/best.ckpt"
    last = LastCheckpoint(tmp_path / "last")
    for epochs, expected in (2, "The file of LastCheckpoint always can"), (3, f"{tmp_path}/last/last.ckpt can"):
        caplog.clear()
        fit_hardened(BoringModel(), data, tmp_path, [last], ckpt_path=loaded, max_epochs=epochs)
        assert f"this checkpoint cannot be resumed exactly. {expected}." in caplog.text
