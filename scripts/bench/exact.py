"""P9: what exact resume costs: the same run with it and without, step by step in turns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from time import thread_time
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from scripts.bench import ours
from scripts.bench.images import BATCH_SIZE, Size
from scripts.bench.measure import Bar, Row, ratios

EPOCHS = 2  # of each run


class TakeTurns(Callback):
    """After each step, waits until another run has made one.

    Args:
        mine: Given when this run may go on.
        other: Given to let the other go on.
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

    A difference of a few percent drowns in what a machine does within a second. So the two run in two threads that
    hand over after every step, and each thread's own CPU seconds are counted.

    Args:
        size: How many images an epoch has.
        repeats: Rounds that count.
        folder: For what the runs write.
    """
    _side_by_side(size, folder, ["false", "true"])  # warms up
    rounds = [_side_by_side(size, folder, ["false", "true"]) for _ in range(repeats)]
    controls = [_side_by_side(size, folder, ["false", "false"]) for _ in range(repeats)]
    found = {"without, s": [pair[0] for pair in rounds], "with, s": [pair[1] for pair in rounds]}
    same = {"one, s": [pair[0] for pair in controls], "the other, s": [pair[1] for pair in controls]}
    steps = f"{repeats * EPOCHS * -(-size.train // BATCH_SIZE):,} steps"
    return [
        Row("P9", f"{steps}, with exact resume over without", "x", ratios(*reversed(found.values())), Bar(1.03), found),
        Row("P9", f"{steps}, the same beside itself", "x", ratios(*reversed(same.values())), None, same),
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
            other.release(10_000)  # nobody comes after this one

    words = [f"trainer.max_epochs={EPOCHS}"]
    runs = [ours.make(size, folder, *words, f"resilience.exact_resume={exact}") for exact in wanted]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(fit, range(2)))
