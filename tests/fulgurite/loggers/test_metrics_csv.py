"""metrics.csv of a resumed run: cut at the row of the save, and continued in that row."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.loggers.metrics_csv import MetricsCSVLogger, drop_rows_from


def _write(folder: Path, *rows: tuple[int, dict[str, float]]) -> MetricsCSVLogger:
    logger = MetricsCSVLogger(folder)
    for step, metrics in rows:
        logger.log_metrics(metrics, step)
    return logger


FIRST = ((7, {"loss": 0.5}), (7, {"epoch": 0, "acc": 0.25}), (3, {"loss": 0.125}))
LATER = ((3, {"acc": 0.75}), (9, {"loss": 1e-9, "new": 2.0}))


def test_a_resumed_file_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
        assert _write(folder, *FIRST).num_rows == 2
        _write(folder, *LATER)
    assert drop_rows_from(killed, 0, num_rows=2) == 1
    assert MetricsCSVLogger(killed).num_rows == 2
    logger = _write(killed, *LATER)
    assert logger.num_rows == 3
    assert (killed / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


def test_a_kill_amid_a_write_keeps_the_complete_rows(tmp_path: Path) -> None:
    _write(tmp_path, *FIRST)
    file = tmp_path / "metrics.csv"
    whole = file.read_text()
    file.write_text(whole + "0,9")
    assert drop_rows_from(tmp_path, 0, num_rows=2) == 1
    assert file.read_text() == whole


@pytest.mark.parametrize(("step", "left"), [(7, 1), (8, 2), (3, 0)])
def test_a_checkpoint_without_a_row_count_cuts_by_the_step(step: int, left: int, tmp_path: Path) -> None:
    _write(tmp_path, *FIRST)
    assert drop_rows_from(tmp_path, step) == 2 - left
    assert MetricsCSVLogger(tmp_path).num_rows == left


def test_a_first_row_without_a_metric_begins_the_file(tmp_path: Path) -> None:
    assert _write(tmp_path, (0, {"epoch": 0}), (1, {})).num_rows == 2
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step\n0,0\n,1\n"
