"""`metrics.csv`, which every run writes, and Lightning's CSV logger for a resumed run."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.compat.lightning import DummyExperiment, num_logged_steps
from fulgurite.core.errors import DiskFull, is_disk_full
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import parse_count
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.core.redact import hide_secrets
from fulgurite.runs.layout import LOGGED, METRICS

log = RankedLogger(__name__)


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
        self._num_rows = 0
        self._size_written = 0

    @property
    def name(self) -> str:
        """Empty: the file is in the run directory itself, and so are checkpoints of a callback without `dirpath`."""
        return ""

    @property
    def version(self) -> str:
        """Empty: a run has one metrics file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._path.parent)

    @property
    def log_dir(self) -> str:
        """The run directory, as of Lightning's CSV logger."""
        return self.save_dir

    @property
    def experiment(self) -> DummyExperiment:
        """An object that ignores every call: a model that logs images runs without a service too."""
        return DummyExperiment()

    @property
    def num_rows(self) -> int:
        """Number of rows in the file."""
        self._read_if_changed()
        return self._num_rows

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics to the row of `step`."""
        try:
            self._write({hide_secrets(name): value for name, value in metrics.items()}, step)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"{self._path}: no space for the row of step {step} ({error.strerror}); earlier rows are intact. "
                "Free space, or set paths.log_dir=<folder on another disk>."
            ) from error

    def _write(self, metrics: Mapping[str, float], step: int | None) -> None:
        self._read_if_changed()
        if self._size_written and not self._path.exists():
            log.warning("%s: was removed while the run writes it; its rows before step %s are lost", self._path, step)
            self._columns, self._row, self._row_start, self._size_written = ["epoch", "step"], {}, 0, 0
        if not self._row or self._row["step"] != step:
            self._row, self._row_start = {"step": step}, self._size()
            self._num_rows += 1
        self._row.update(metrics)
        new = [name for name in self._row if name not in self._columns]
        self._columns += sorted(new)
        if new or not self._size():  # the first row of a file may have no metric
            self._rewrite_header()
        with self._path.open("r+", newline="") as file:
            file.seek(self._row_start)
            file.write(self._line(self._row))  # before truncating: a kill in between keeps the row
            file.truncate()
        self._size_written = self._size()

    def _read_if_changed(self) -> None:
        """Continue the last row of a file that an earlier start or spawned ranks have written."""
        if self._size() == self._size_written or not self._path.is_file():
            return
        text = self._path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text))
        rows = list(reader)
        self._columns, self._row = list(reader.fieldnames or self._columns), {}
        self._num_rows, self._size_written = len(rows), self._size()
        if rows and text.endswith(line := self._line(rows[-1])):
            step = parse_count(rows[-1]["step"])
            self._row = {**rows[-1], "step": rows[-1]["step"] if step is None else step}
            self._row_start = self._size_written - len(line.encode())

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


def drop_rows_from(folder: Path, step: int, num_rows: int | None = None) -> int:
    """Drop the later rows from `metrics.csv` in a folder, and return their number.

    Args:
        folder: The run directory.
        step: The first step to drop, as the loggers count steps.
        num_rows: Rows to keep, whatever their steps; None goes by the step.
    """
    path = folder / METRICS
    if not path.is_file():
        return 0
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("step")
    complete = [row for row in rows if len(row) == len(header)]  # a kill during a write leaves an incomplete row
    kept = [row for row in complete if (logged := parse_count(row[column])) is not None and logged < step]
    if num_rows is not None:  # a model can log steps of its own
        kept = complete[:num_rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *kept])
    if kept:
        write_atomic(path, text.getvalue())
    else:
        path.unlink()
    return len(rows) - len(kept)


class RecordLogged(Callback):
    """Callback that keeps in each checkpoint how far the loggers were, which is where a resumed run cuts them."""

    def __init__(self, metrics: MetricsCSVLogger) -> None:
        self.metrics = metrics

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the number of rows and the step of the next values."""
        checkpoint[LOGGED] = {"rows": self.metrics.num_rows, "step": num_logged_steps(trainer)}


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
        if (path := Path(self.log_dir) / METRICS).is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])
