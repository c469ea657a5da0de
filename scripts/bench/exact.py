"""P9: what exact resume costs: the same run with it and without, side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.bench import ours
from scripts.bench.epochs import CLOCKS
from scripts.bench.images import BATCH_SIZE, Size
from scripts.bench.measure import Bar, Row, alternate, ratios


def exact_rows(size: Size, repeats: int, folder: Path, clock: str) -> list[Row]:
    """Measure whole runs of an epoch, from the call of `fit` to its end, saves and validation included.

    Args:
        size: How many images an epoch has.
        repeats: Rounds that count; a difference this small takes many.
        folder: For what the runs write.
        clock: `wall`, or `cpu` for the seconds of this process alone.
    """
    now = CLOCKS[clock]

    def fit(wanted: str) -> Callable[[], float]:
        def run() -> float:
            made, start = ours.make(size, folder, f"extras.exact_resume={wanted}"), now()
            made.trainer.fit(made.model, datamodule=made.datamodule)
            return now() - start

        return run

    found = alternate({"without, s": fit("false"), "with, s": fit("true")}, repeats)
    steps = repeats * -(-size.train // BATCH_SIZE)
    what = f"{steps:,} steps, with exact resume over without"
    return [Row("P9", what, "x", ratios(found["with, s"], found["without, s"]), Bar(1.03), found)]
