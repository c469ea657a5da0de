"""P9: compare a run with and without exact resume, alternating after each step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from time import thread_time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from scripts.bench import template_run
from scripts.bench.images import BATCH_SIZE, Size
from scripts.bench.measure import Row, Threshold, ratios

EPOCHS = 2  # of each run


class TakeTurns(Callback):
    """Wait after each step until another run has made one.

    Args:
        mine: Released when this run may continue.
        other: Released to let the other run continue.
    """

    def __init__(self, mine: Semaphore, other: Semaphore) -> None:
        self.mine = mine
        self.other = other

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand over and wait."""
        self.other.release()
        self.mine.acquire()


def exact_rows(size: Size, repeats: int, folder: Path) -> list[Row]:
    """Measure whole runs, from the call of `fit` to its end, saves and validations included.

    The load of a machine changes by more than a few percent within a second. So two threads alternate after every
    step, and the benchmark counts the CPU seconds of each thread.

    Args:
        size: Number of images.
        repeats: Number of measured rounds.
        folder: For the run directories.
    """
    _side_by_side(size, folder, ["false", "true"])  # warms up
    rounds = [_side_by_side(size, folder, ["false", "true"]) for _ in range(repeats)]
    controls = [_side_by_side(size, folder, ["false", "false"]) for _ in range(repeats)]
    found = {"without, s": [pair[0] for pair in rounds], "with, s": [pair[1] for pair in rounds]}
    same = {"one, s": [pair[0] for pair in controls], "the other, s": [pair[1] for pair in controls]}
    steps = f"{repeats * EPOCHS * -(-size.train // BATCH_SIZE):,} steps"
    return [
        Row(
            "P9",
            f"{steps}, with exact resume over without",
            "x",
            ratios(*reversed(found.values())),
            Threshold(1.03),
            found,
        ),
        Row("P9", f"{steps}, without over without (control)", "x", ratios(*reversed(same.values())), None, same),
    ]


def _side_by_side(size: Size, folder: Path, wanted: list[str]) -> list[float]:
    """Return the CPU seconds of two runs."""
    turns = [Semaphore(1), Semaphore(0)]

    def fit(number: int) -> float:
        mine, other = turns[number], turns[1 - number]
        run = runs[number]
        cast(Any, run.trainer).callbacks.append(TakeTurns(mine, other))
        mine.acquire()
        start = thread_time()
        try:
            run.trainer.fit(run.model, datamodule=run.datamodule)
            return thread_time() - start
        finally:
            other.release(10_000)  # the other run must not wait again

    # both save after each epoch: whether the second is the best depends on the order of the data
    words = [f"trainer.max_epochs={EPOCHS}", "callbacks.model_checkpoint.save_top_k=-1"]
    runs = [template_run.build_run(size, folder, *words, f"resilience.exact_resume={exact}") for exact in wanted]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(fit, range(2)))
