"""The template itself: a composed config, built and fitted, with the callbacks and the records a user gets."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.config.compose import compose
from fulgurite.engine.build import Run, build
from scripts.bench.images import Size, overrides, resize
from scripts.bench.measure import resident
from src.data.mnist import MNISTDataModule


class Steps(Callback):
    """Notes the clock after each optimizer step, and the resident memory at some of them.

    Args:
        now: Clock, in seconds.
        weigh_every: Steps between two looks at the memory; 0 never looks.
    """

    def __init__(self, now: Callable[[], float], weigh_every: int = 0) -> None:
        self.now = now
        self.weigh_every = weigh_every
        self.stamps: list[float] = []
        self.sizes: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step."""
        self.stamps.append(self.now())
        if self.weigh_every and len(self.stamps) % self.weigh_every == 0:
            self.sizes.append(resident()["all"])


def make(size: Size, folder: Path, *words: str) -> Run:
    """Build a run on the benchmark's images, as a door does.

    Args:
        size: How many images.
        folder: Runs get directories of their own below it.
        words: More words of the command line.
    """
    output_dir = Path(mkdtemp(dir=folder))
    cfg = compose([*overrides(size), "trainer.max_epochs=1", *words], output_dir=output_dir)
    with redirect_stdout(io.StringIO()):  # no terminal: lines instead of a bar, which would draw over the results
        run = build(cfg)
    resize(cast(MNISTDataModule, run.datamodule), size)
    return run


def fit(run: Run, now: Callable[[], float], weigh_every: int = 0) -> Steps:
    """Train and validate, and return when each step ended.

    Args:
        run: What `make` returned; a run is used once.
        now: Clock, in seconds.
        weigh_every: Steps between two looks at the memory.
    """
    steps = Steps(now, weigh_every)
    cast(Any, run.trainer).callbacks.append(steps)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    return steps
