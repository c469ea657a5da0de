"""The template's own run: a composed config with the default callbacks and records."""

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
from scripts.bench.measure import resident_bytes
from src.data.mnist import MNISTDataModule


class StepRecorder(Callback):
    """Record the time after each optimizer step, and the resident memory at some steps.

    Args:
        now: Clock, in seconds.
        weigh_every: Steps between two memory samples; 0 takes none.
    """

    def __init__(self, now: Callable[[], float], weigh_every: int = 0) -> None:
        self.now = now
        self.weigh_every = weigh_every
        self.stamps: list[float] = []
        self.sizes: list[int] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step."""
        self.stamps.append(self.now())
        if self.weigh_every and len(self.stamps) % self.weigh_every == 0:
            self.sizes.append(resident_bytes()["all"])


def build_run(size: Size, folder: Path, *extra_overrides: str) -> Run:
    """Build a run on the benchmark's images, as an entry point does.

    Args:
        size: Number of images.
        folder: Parent of the run directory.
        extra_overrides: Additional Hydra overrides.
    """
    output_dir = Path(mkdtemp(dir=folder))
    cfg = compose([*overrides(size), "trainer.max_epochs=1", *extra_overrides], output_dir=output_dir)
    with redirect_stdout(io.StringIO()):  # without a terminal, Lightning prints no progress bar
        run = build(cfg)
    resize(cast(MNISTDataModule, run.datamodule), size)
    return run


def fit_run(run: Run, now: Callable[[], float], weigh_every: int = 0) -> StepRecorder:
    """Train and validate, and return the recorded steps.

    Args:
        run: What `build_run` returned; a run is used once.
        now: Clock, in seconds.
        weigh_every: Steps between two memory samples.
    """
    steps = StepRecorder(now, weigh_every)
    cast(Any, run.trainer).callbacks.append(steps)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    return steps
