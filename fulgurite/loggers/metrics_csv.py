"""`metrics.csv`, which every run writes."""

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
    """Writes `metrics.csv`: one row per logged optimizer step, one column per metric.

    The file is complete after every row; a new column rewrites it.

    Args:
        folder: Run directory.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._path = Path(folder) / METRICS
        self._columns: list[str] = ["epoch", "step"]
        self._row: dict[str, Any] = {}
        self._row_start = 0  # bytes before the row
        self._size_written = 0

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics_file"

    @property
    def version(self) -> str:
        """Empty: a run has one metrics file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics to the row of `step`.

        Raises:
            DiskFull: There is no space for the row; earlier rows are intact.
        """
        try:
            self._write(metrics, step)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"{self._path}: no space for the row of step {step} ({error.strerror}); earlier rows are intact. "
                "Free space, or set paths.log_dir=<folder on another disk>."
            ) from error

    def _write(self, metrics: Mapping[str, float], step: int | None) -> None:
        values = dict(metrics)
        changed_outside = self._size() != self._size_written  # by an earlier start or by spawned ranks
        if changed_outside:
            self._read_columns()
        if changed_outside or self._row.get("step") != step:
            self._row, self._row_start = {"step": step}, self._size()
        self._row.update(values)
        if new := [name for name in self._row if name not in self._columns]:
            self._columns += sorted(new)
            self._rewrite_header()
        with self._path.open("r+", newline="") as file:
            file.seek(self._row_start)
            file.truncate()
            file.write(self._line(self._row))
        self._size_written = self._size()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: run.json has the hyperparameters."""

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
        """Write the complete rows again with the present columns."""
        rows: list[dict[str, str]] = []
        if self._path.exists():
            with self._path.open("rb") as file:
                before = file.read(self._row_start).decode()
            rows = list(csv.DictReader(io.StringIO(before)))
        text = self._line(dict(zip(self._columns, self._columns, strict=True))) + "".join(map(self._line, rows))
        # atomic, but without fsync, which can take longer than an epoch
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(text, newline="")
        temporary.replace(self._path)
        self._row_start = len(text.encode())


def drop_rows_from(folder: Path, step: int) -> int:
    """Drop the rows of a step and of later ones from `metrics.csv`, and return their number.

    Args:
        folder: Run directory.
        step: Optimizer steps of a checkpoint, which was saved after all rows of lower steps.
    """
    path = folder / METRICS
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("step")
    # a kill during a write leaves an incomplete row
    kept = [row for row in rows if len(row) == len(header) and row[column].isdigit() and int(row[column]) < step]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *kept])
    if kept:
        write_atomic(path, text.getvalue())
    else:
        path.unlink()
    return len(rows) - len(kept)
