"""`metrics.csv`, which every run writes, and Lightning's CSV logger for a resumed run."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.core.errors import DiskFull, is_disk_full
from fulgurite.core.files import write_atomic
from fulgurite.runs.layout import METRICS


class MetricsCSVLogger(Logger):
    """Writes `metrics.csv` to the run directory: one row per logged optimizer step, one column per metric.

    The file is complete after every row; a new column rewrites it.
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
        """Add the metrics to the row of `step`."""
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
        if self._size() != self._size_written:  # an earlier start or spawned ranks have written
            self._columns, self._row = _columns_of(self._path) or self._columns, {}
        if not self._row or self._row["step"] != step:
            self._row, self._row_start = {"step": step}, self._size()
        self._row.update(metrics)
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

    def _line(self, row: Mapping[str, Any]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, lineterminator="\n").writerow(row)
        return buffer.getvalue()

    def _rewrite_header(self) -> None:
        """Write the complete rows again with the present columns."""
        complete = self._path.read_bytes()[: self._row_start].decode() if self._path.exists() else ""
        rows = csv.DictReader(io.StringIO(complete))
        text = self._line(dict(zip(self._columns, self._columns, strict=True))) + "".join(map(self._line, rows))
        # atomic, but without fsync, which can take longer than an epoch
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(text, newline="")
        temporary.replace(self._path)
        self._row_start = len(text.encode())


def _columns_of(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def drop_rows_from(folder: Path, step: int) -> int:
    """Drop the rows of a step and of later ones from `metrics.csv` in a folder, and return their number."""
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


class AppendingCSVLogger(CSVLogger):
    """Appends to the rows before `first_step`; `CSVLogger` deletes the rows of the first start."""

    def __init__(self, *, first_step: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._first_step = first_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of the rows."""
        if self._experiment is None:
            drop_rows_from(Path(self.log_dir), self._first_step)
            self._experiment = _AppendingWriter(self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Keep the file, and use its columns."""
        if (file := Path(self.log_dir) / METRICS).is_file():
            self.metrics_keys = _columns_of(file)
