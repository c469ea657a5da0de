"""Numbers of a run: the file that is always written, and the check that the wanted one is among them."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.core.errors import DiskFull, is_disk_full
from fulgurite.core.files import write_atomic
from fulgurite.runs.layout import METRICS


class MetricsCSVLogger(Logger):
    """Writes `metrics.csv`: one row an optimizer step that logged something, one column a metric.

    Metrics that are logged at the same step share a row. The file is on disk after every row; a new column rewrites it.

    Args:
        folder: The run's directory.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._path = Path(folder) / METRICS
        self._columns: list[str] = ["epoch", "step"]
        self._row: dict[str, Any] = {}
        self._row_starts = 0
        self._ends = 0

    @property
    def name(self) -> str:
        """Name of the tracker."""
        return "metrics_file"

    @property
    def version(self) -> str:
        """A run has one metrics file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics to the row of `step`.

        Raises:
            DiskFull: The row has no room; the rows before are whole.
        """
        try:
            self._write(metrics, step)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"{self._path}: no room for the row of step {step} ({error.strerror}); what was saved is whole; free "
                "space, or write elsewhere with paths.log_dir=<folder on another disk>"
            ) from error

    def _write(self, metrics: Mapping[str, float], step: int | None) -> None:
        values = dict(metrics)
        written_by_others = self._size() != self._ends  # an earlier start, or the processes that were spawned to train
        if written_by_others:
            self._read_columns()
        if written_by_others or self._row.get("step") != step:
            self._row, self._row_starts = {"step": step}, self._size()
        self._row.update(values)
        if new := [name for name in self._row if name not in self._columns]:
            self._columns += sorted(new)
            self._rewrite_header()
        with self._path.open("r+", newline="") as file:
            file.seek(self._row_starts)
            file.truncate()
            file.write(self._line(self._row))
        self._ends = self._size()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's record keeps the hyperparameters."""

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _read_columns(self) -> None:
        with self._path.open(newline="") as file:
            self._columns = next(csv.reader(file), self._columns)

    def _line(self, row: Mapping[str, Any]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, lineterminator="\n").writerow(row)
        return buffer.getvalue()

    def _rewrite_header(self) -> None:
        """Write the file again with the columns of now; the row that is being filled goes last."""
        done: list[dict[str, str]] = []
        if self._path.exists():
            with self._path.open("rb") as file:
                before = file.read(self._row_starts).decode()
            done = list(csv.DictReader(io.StringIO(before)))
        text = self._line(dict(zip(self._columns, self._columns, strict=True))) + "".join(map(self._line, done))
        # replaced whole, but not forced to the disk: that can take longer than an epoch
        aside = self._path.with_suffix(".tmp")
        aside.write_text(text, newline="")
        aside.replace(self._path)
        self._row_starts = len(text.encode())


def drop_rows_from(folder: Path, step: int) -> int:
    """Take away what `metrics.csv` says of a step and of later ones, and return how many rows that were.

    Args:
        folder: A run directory.
        step: Optimizer steps that a checkpoint holds; it was saved after all rows of lower steps were written.
    """
    path = folder / METRICS
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    at = header.index("step")
    # a kill amid a write leaves a line without its numbers
    kept = [row for row in rows if len(row) == len(header) and row[at].isdigit() and int(row[at]) < step]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *kept])
    if kept:
        write_atomic(path, text.getvalue())
    else:
        path.unlink()
    return len(rows) - len(kept)
