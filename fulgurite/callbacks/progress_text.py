"""The text of the progress bar, which fits the width of the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fulgurite.core.formatting import format_clock, format_number

if TYPE_CHECKING:
    from rich.text import Text

MIN_BAR, MAX_BAR = 6, 30  # characters
BAR_COLOR = "dodger_blue1"  # readable on dark and on light grounds


@dataclass(frozen=True)
class ProgressText:
    """The numbers of the bar; None leaves one out.

    Attributes:
        label: The loop, e.g. `epoch 3/19`.
        done: Batches that are done.
        total: Batches of the loop; infinite when nobody knows.
        loss: A running mean of the training loss.
        lr: Learning rate of the first parameter group.
        metrics: Metrics that the model logs with `prog_bar=True`.
        rate: Batches per second.
        epoch_left: Seconds left of the epoch.
        run_left: Seconds left of the run.
    """

    label: str
    done: int
    total: float
    loss: float | None = None
    lr: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None
    epoch_left: float | None = None
    run_left: float | None = None


def progress_line(shown: ProgressText, width: int) -> Text:
    """Return the bar as one line of at most `width` characters.

    Metrics are left out first, then the bar itself. The counts become a percentage, and the times get shorter.
    """
    from rich.text import Text

    is_known = shown.total not in (0, float("inf"))
    fraction = min(1.0, shown.done / shown.total) if is_known else 0.0
    counts = f"{shown.done}/{int(shown.total)}" if is_known else f"{shown.done} batches"
    numbers = {"loss": shown.loss, "lr": shown.lr}
    values = [f"{name} {format_number(value)}" for name, value in numbers.items() if value is not None]
    after = [format_rate(shown.rate)] if shown.rate else []
    line = "  ".join([shown.label, counts, *values, *after, *_time_left(shown)])
    if is_known and len(line) > width:
        line = "  ".join([shown.label, counts := f"{fraction:.0%}", *values, *after, *_time_left(shown)])
    if len(line) > width:
        return Text(" ".join([shown.label, counts, *values, *after, *_time_left(shown, short=True)])[:width])
    room = width - len(line) - MIN_BAR
    for name, value in shown.metrics.items():
        text = f"{name} {format_number(value)}"
        if (room := room - len(text) - 2) < 0:
            break
        values.append(text)
    rest = "  ".join([counts, *values, *after, *_time_left(shown)])
    size = min(MAX_BAR, width - len(shown.label) - len(rest) - 2) if is_known else 0
    if size < MIN_BAR:
        return Text(f"{shown.label}  {rest}")
    filled = round(fraction * size)
    bar = ("━" * filled, BAR_COLOR), ("━" * (size - filled), "bright_black")
    return Text.assemble(f"{shown.label} ", *bar, f" {rest}")


def _time_left(shown: ProgressText, *, short: bool = False) -> list[str]:
    if shown.epoch_left is None:
        return []
    epoch, run = format_clock(shown.epoch_left), format_clock(shown.run_left) if shown.run_left is not None else ""
    if short:
        return [f"{epoch}/{run} left" if run else f"{epoch} left"]
    return [f"{epoch} left, run {run}" if run else f"{epoch} left"]


def format_rate(rate: float) -> str:
    """Return batches per second, or seconds per batch for slow ones."""
    number, unit = (rate, "it/s") if rate >= 1 else (1 / rate, "s/it")
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:.0f} {unit}"
