"""Runs in processes of their own that are killed at a step, and what is compared of them."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.run.load import load_config
from src.train import train

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.resuming", "src.run.build", "src.models.classifier", "src.data.mnist"])


class Probe(Callback):
    """Writes down what every batch was, and at the end what the run has become; kills its process at a step.

    Args:
        folder: Gets `batches.jsonl` and `end.json`.
        kill_at: Optimizer steps after which the process is killed; None lets it live.
    """

    def __init__(self, folder: str, kill_at: int | None = None) -> None:
        self.folder = Path(folder)
        self.kill_at = kill_at

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write down the batch."""
        with (self.folder / "batches.jsonl").open("a") as file:
            row = [trainer.current_epoch, batch_idx, trainer.global_step, _digest(batch)]
            file.write(json.dumps(row) + "\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Kill the process as `kill -9` does."""
        if trainer.global_step == self.kill_at and not trainer.fit_loop.epoch_loop._should_accumulate():
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what the run has become."""
        optimizer = trainer.optimizers[0].state_dict()
        end = {
            "weights": _digest(value for _, value in sorted(pl_module.state_dict().items())),
            "optimizer": _digest(value for state in optimizer["state"].values() for _, value in sorted(state.items())),
            "settings": repr(optimizer["param_groups"]),
            "schedulers": [repr(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
            "metrics": {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())},
            "generator": _digest([torch.get_rng_state()]),
            "step": trainer.global_step,
        }
        (self.folder / "end.json").write_text(json.dumps(end))


def run(folder: Path, words: Sequence[str], *, kill_at: int | None = None) -> int | None:
    """Train in a process of its own and return its exit code, -9 when it was killed.

    Args:
        folder: The run's directory.
        words: Overrides.
        kill_at: Optimizer steps after which the process is killed.
    """
    folder.mkdir(parents=True)
    process = PROCESSES.Process(target=_train, args=(folder, list(words), kill_at))
    process.start()
    process.join(timeout=240)
    return process.exitcode


def killed_and_resumed(folder: Path, words: Sequence[str], *, kill_at: int) -> Path:
    """Kill a run at a step, give its command again with its last checkpoint, and return the folder of both."""
    assert run(folder / "killed", words, kill_at=kill_at) == -signal.SIGKILL
    checkpoint = folder / "killed" / "checkpoints" / "last.ckpt"
    assert run(folder / "resumed", [*words, f"ckpt_path={checkpoint}"]) == 0
    return folder


def history(folder: Path) -> dict[str, Any]:
    """Return all that is compared of a run: straight, or killed and resumed in two folders below."""
    if not (folder / "killed").exists():
        end = json.loads((folder / "end.json").read_text())
        return {**end, "batches": _batches(folder), "rows": _rows(folder)}
    step = torch.load(folder / "killed/checkpoints/last.ckpt", weights_only=True)["global_step"]
    resumed = history(folder / "resumed")
    before = [batch for batch in _batches(folder / "killed") if batch[2] < step]
    rows = [row for row in _rows(folder / "killed") if int(row["step"]) < step]
    return {**resumed, "batches": [*before, *resumed["batches"]], "rows": [*rows, *resumed["rows"]]}


def _train(folder: Path, words: list[str], kill_at: int | None) -> None:
    # workers of a loader must be children of this process, to end when it is killed
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    probe = f"+callbacks.probe={{_target_: tests.resuming.Probe, folder: '{folder}', kill_at: {kill_at or 'null'}}}"
    cfg = load_config([*words, probe, "extras.allowed_targets=[tests]"], output_dir=folder)
    train(cfg)


def _batches(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "batches.jsonl").read_text().splitlines()]


def _rows(folder: Path) -> list[dict[str, str]]:
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]
