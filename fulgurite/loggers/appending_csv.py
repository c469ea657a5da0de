"""Lightning's CSV logger for a run that goes on: the plain one deletes the file of the earlier start."""

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
            drop_rows_from(Path(self.log_dir), self._before)
            self._experiment = _Appender(self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _Appender(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Delete nothing, and go on with the columns that are there."""
        file = Path(self.log_dir) / METRICS
        if file.is_file():
            with file.open(newline="") as opened:
                self.metrics_keys = next(csv.reader(opened))
