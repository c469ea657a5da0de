"""Lightning's CSV logger for a resumed run; `CSVLogger` deletes the rows of the first start."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from fulgurite.loggers.metrics_csv import drop_rows_from
from fulgurite.runs.layout import METRICS


class AppendingCSVLogger(CSVLogger):
    """Keeps the rows before a step, and appends to them.

    Args:
        first_step: First step that is logged again.
        **arguments: Arguments of `CSVLogger`.
    """

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
        file = Path(self.log_dir) / METRICS
        if file.is_file():
            with file.open(newline="") as stream:
                self.metrics_keys = next(csv.reader(stream))
