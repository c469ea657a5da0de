"""P10: measure what an idle `LiveControl` adds to a training step."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.compat.idle_hooks import skip_idle_hooks
from fulgurite.live import LiveControl
from scripts.bench.epochs import CLOCKS
from scripts.bench.measure import Row, Threshold, differences, measure_in_turns, ratios

MOST = Threshold(100.0)  # microseconds a step


class Line(LightningModule):
    """A step as short as Lightning makes it."""

    def __init__(self, clock: str) -> None:
        super().__init__()
        self.net, self.now = nn.Linear(8, 1), CLOCKS[clock]
        self.first = self.last = 0.0  # seconds at the first and the newest step

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        self.last = self.now()
        self.first = self.first or self.last
        loss: torch.Tensor = self.net(batch[0]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def live_rows(repeats: int, folder: Path, steps: int, clock: str) -> list[Row]:
    """Measure a step with and without the callback.

    Args:
        repeats: Number of measured rounds.
        folder: The run directory.
        steps: Steps of one round.
        clock: `wall`, or `cpu` for the CPU seconds of this process, of the reading thread too.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = {f"{name}, us": partial(_train, folder, steps, clock, with_live=name == "idle") for name in ("idle", "none")}
    found = measure_in_turns(runs, repeats)
    idle, none = found.values()
    return [
        Row("P10", "an idle live callback, a step", "us", differences(idle, none), MOST, found),
        Row("P10", "a short step, with an idle live callback over without", "x", ratios(idle, none)),
    ]


def _train(folder: Path, steps: int, clock: str, *, with_live: bool) -> float:
    """Return the microseconds from one step to the next, on average."""
    callbacks, model = [LiveControl(folder)] if with_live else [], Line(clock)
    skip_idle_hooks(callbacks)  # as every run does
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks],
    )
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.randn(4 * steps, 8)), batch_size=4)
    trainer.fit(model, loader)
    return (model.last - model.first) / (steps - 1) * 1e6
