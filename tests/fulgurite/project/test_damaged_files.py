"""Files of a run that are damaged or removed are reported in one line, and nothing else is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.engine.outcome import classify_error
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.study.storage import STUDY_FILE, open_storage


@pytest.mark.parametrize("content", ["", '{"status": "do', "[1]"])
def test_a_record_that_is_not_readable_is_named_once(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(content)
    assert RunDirectory.of(tmp_path) is None
    assert RunDirectory.of(tmp_path) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}: run.json is not readable (")


def test_a_folder_without_a_record_is_no_run_and_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert RunDirectory.of(tmp_path) is None
    assert capsys.readouterr().err == ""


def test_a_resumed_run_with_a_cut_record_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "do')
    with pytest.raises(UserError, match=r"^resume=x: has no readable run.json and .hydra/overrides.yaml. Name"):
        RunDirectory.read(tmp_path, argument="resume=x")


def test_metrics_that_are_removed_while_the_run_writes_them_go_on_in_a_new_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = MetricsCSVLogger(tmp_path)
    file.log_metrics({"epoch": 0, "loss": 2.0}, step=1)
    (tmp_path / "metrics.csv").unlink()
    file.log_metrics({"epoch": 0, "loss": 1.0}, step=2)
    file.log_metrics({"epoch": 0, "acc": 0.5}, step=2)
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step,loss,acc\n0,2,1.0,0.5\n"
    assert caplog.text.count("was removed while the run writes it; its rows before step 2 are lost") == 1


def test_a_run_directory_that_is_removed_ends_the_run_in_one_line(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"paths": {"output_dir": str(tmp_path / "run")}})
    error = FileNotFoundError(2, "No such file", str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    outcome = classify_error(error, cfg)
    assert (outcome.status, outcome.exit_code) == ("failed", 2)
    assert outcome.reason == (
        f"{tmp_path}/run/checkpoints: was removed while the run writes to it. Keep it, and resume."
    )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert classify_error(error, cfg).exit_code == 1  # a file that the user's code misses keeps its traceback
    assert classify_error(FileNotFoundError(2, "No such file", "/elsewhere/x"), cfg).exit_code == 1


@pytest.mark.parametrize("start", [0, 4096 * 2])
def test_a_study_with_damaged_pages_is_refused_in_one_line(start: int, tmp_path: Path) -> None:
    file = tmp_path / STUDY_FILE
    sweeper = OmegaConf.create({"storage": None})
    open_storage(sweeper, tmp_path)
    open_storage(sweeper, tmp_path)  # an intact one is opened again
    content = bytearray(file.read_bytes())
    content[start : start + 4096 * 3] = b"\xff" * 4096 * 3
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"study.db: is damaged \(.+\). Restore a copy of the file, or start a new"):
        open_storage(sweeper, tmp_path)


def test_a_study_that_another_process_has_locked_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulgurite.study.storage.LOCK_TIMEOUT_SECONDS", 0.01)
    open_storage(OmegaConf.create({"storage": None}), tmp_path)
    with closing(sqlite3.connect(tmp_path / STUDY_FILE)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Exception, match="locked") as raised:
            open_storage(OmegaConf.create({"storage": None}), tmp_path)
    assert "damaged" not in str(raised.value)
