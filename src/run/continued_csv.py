"""Lightning's CSV logger for a run that goes on: the plain one deletes the file of the earlier start."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.base.files import write_atomic


class ContinuedCSVLogger(CSVLogger):
    """Keeps the rows before a step and appends.

    Args:
        before: The step; rows of it and of later ones are written again by the run that goes on.
        **settings: What `CSVLogger` takes.
    """

    def __init__(self, *, before: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._before = before

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What holds the rows that are not in the file yet."""
        if self._experiment is None:
            columns = keep_rows(Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE, self._before)
            self._experiment = _Appender(self.log_dir)
            self._experiment.metrics_keys = columns
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _Appender(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""


def keep_rows(path: Path, before: int) -> list[str]:
    """Cut a file of metrics down to the rows of earlier steps, and return its columns.

    Args:
        path: A CSV file with a header and a column `step`; it may be missing.
        before: First step whose rows go.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        # a row that a kill cut off has no step
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < before]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())
    return columns
