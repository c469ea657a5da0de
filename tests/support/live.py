"""Short runs with live control, and edits at steps that a test chooses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.last_checkpoint import LastCheckpoint
from fulgurite.live import LiveControl
from fulgurite.live.document.history import Edit
from fulgurite.live.document.keys import COMMANDS
from tests.support.quiet_trainer import fit_hardened

BATCHES = 8  # of one epoch, on one process


class Task(LightningModule):
    """A small net with dropout, two parameter groups and any scheduler.

    Args:
        make: Makes the scheduler of an optimizer; None: none.
        settings: Of the scheduler in Lightning's dictionary.
    """

    def __init__(self, make: Any = None, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.make, self.settings = make, settings

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        loss: torch.Tensor = (self.net(batch[0]) - batch[1]).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log a loss that does not improve."""
        self.log("val/loss", 1.0)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a group without weight decay, and the scheduler."""
        weights = [weight for weight in self.parameters() if weight.ndim == 2]
        biases = [weight for weight in self.parameters() if weight.ndim == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0, "lr": 0.02}]
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        if self.make is None:
            return optimizer
        scheduler = {"scheduler": self.make(optimizer), "interval": "step", **self.settings}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Data(LightningDataModule):
    """Eight batches to train on, two to validate with."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled examples."""
        return DataLoader(_examples(4 * BATCHES), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return a few."""
        return DataLoader(_examples(8), batch_size=4)


def _examples(count: int) -> TensorDataset:
    made = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(made, made.sum(dim=1, keepdim=True))


class Trace(Callback):
    """Notes the learning rates and settings with which each batch is trained on."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.decays: list[list[float]] = []
        self.validated: list[int] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note the rates of all groups."""
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        self.decays.append([float(group["weight_decay"]) for group in optimizer.param_groups])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step."""
        if not trainer.sanity_checking:
            self.validated.append(trainer.global_step)


class At(Callback):
    """Writes documents after some batches, and waits until the run has read each.

    Args:
        folder: The run directory.
        texts: By batch, over all epochs.
    """

    def __init__(self, folder: Path, texts: Mapping[int, str]) -> None:
        self.folder, self.texts = folder, texts

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Write the document of this batch."""
        text = self.texts.get(trainer.fit_loop.total_batch_idx)
        if text is not None and trainer.is_global_zero:
            deliver(trainer, self.folder, text)


def deliver(trainer: Trainer, folder: Path, text: str) -> None:
    """Write a document, and wait until the run has read it."""
    live = next(each for each in vars(trainer)["callbacks"] if isinstance(each, LiveControl))
    assert live._watcher is not None
    inbox, before = live._watcher.inbox, len(live._watcher.inbox)
    replace(folder / "live.yaml", text)
    until(lambda: len(inbox) > before)


def until(is_so: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def replace(path: Path, text: str) -> None:
    """Replace a file as editors and `live set` do."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def write_edits(path: Path, edits: Mapping[int, Any]) -> Path:
    """Write a history: by batch, the whole document from there on, commands as counters."""
    before: dict[str, Any] = {}
    lines = []
    for batch, document in edits.items():
        settings = {key: value for key, value in document.items() if key not in COMMANDS}
        changed = {key: document.get(key) for key in {**before, **settings} if before.get(key) != document.get(key)}
        commands = {key: count for key, count in document.items() if key in COMMANDS and count > before.get(key, 0)}
        changed = {key: value for key, value in changed.items() if key not in COMMANDS}
        lines.append(json.dumps(vars(Edit(batch, batch, 0, changed, commands, dict(document), "test", ""))))
        before = dict(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run(
    folder: Path,
    model: LightningModule | None = None,
    edits: Mapping[int, Any] | None = None,
    *,
    live: LiveControl | None = None,
    data: LightningDataModule | None = None,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Path | None = None,
    save_every: int | None = None,
    **settings: Any,
) -> tuple[Trainer, LiveControl, Trace]:
    """Train in a folder, by default four epochs of eight batches, with edits at given batches."""
    torch.manual_seed(0)
    if live is None:
        replay = write_edits(folder / "edits.jsonl", edits) if edits is not None else None
        live = LiveControl(folder, poll_seconds=0.02, replay=replay)
    trace = Trace()
    saver = LastCheckpoint(folder / "checkpoints", every_n_train_steps=save_every)
    settings = {"max_epochs": 4, "log_every_n_steps": 1, **settings}
    stopping = EarlyStopping("val/loss", patience=100, check_on_train_epoch_end=False)
    trainer = fit_hardened(
        model or Task(),
        data or Data(),
        folder,
        [live, trace, stopping, *callbacks, saver],
        ckpt_path=ckpt_path,
        **settings,
    )
    return trainer, live, trace


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return copies of the weights."""
    return {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}


def is_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are bit-identical."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
