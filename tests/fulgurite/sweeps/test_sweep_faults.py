"""A failed job leaves the other jobs of its sweep intact; a killed sweep keeps the jobs that are done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL
from tests.support.cli import read_json, run_cli
from tests.support.faults import processes_with, with_fault
from tests.support.project import ROOT
from tests.support.run_if import RunIf


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_kind_of_failure_is_recorded_and_the_next_job_runs(tmp_path: Path) -> None:
    kinds = "ValueError,spoil,MemoryError,SystemExit,none"
    done = run_cli(
        "train", *SMALL, *with_fault("none"), "-m", f"callbacks.fault.what={kinds}", "test=false", logs=tmp_path
    )
    [sweep] = (tmp_path / "train" / "multiruns").iterdir()
    records = [read_json(sweep / job / "run.json") for job in "01234"]
    assert [(record["status"], record["exit_code"]) for record in records] == [
        ("failed", 1),
        ("failed", 3),
        ("failed", 1),
        ("failed", 1),
        ("done", 0),
    ]
    reasons = [record["reason"] or "" for record in records]
    assert reasons[0] == "ValueError: a fault of this process alone"
    assert "the training loss is nan" in reasons[1]
    assert reasons[2].startswith("out of memory with data.batch_size=")
    assert reasons[3] == "the program called sys.exit with code 1"
    assert done.returncode == 1, "the code of the first job that failed"
    assert "Error executing job" not in done.stderr, "a line of Hydra with all overrides of the job"
    assert done.stdout.count("1 (1 failed)") == 4
    summary = (sweep / "summary.csv").read_text().splitlines()
    assert len(summary) == 6
    assert [row.split(",")[2] for row in summary[1:]] == ["1", "1", "1", "1", "0"]
    # the job after a diverged one starts from its own weights
    assert 0 < read_json(sweep / "4" / "results.json")["metrics"]["train/loss"] < 3


@RunIf(posix=True)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_sweep_keeps_the_jobs_done_and_shows_where_it_was(tmp_path: Path) -> None:
    arguments = ["-m", *SMALL, "seed=1,2,3", "test=false", f"paths.log_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "src/train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        second = wait_for_second(tmp_path, within=90)
    finally:
        process.kill()
        process.wait()
    sweep = second.parent
    assert process.returncode == -signal.SIGKILL
    assert processes_with(str(tmp_path)) == []
    first = read_json(sweep / "0" / "run.json")
    assert (first["status"], first["exit_code"], first["seed"]) == ("done", 0, 1)
    assert "val/acc" in read_json(sweep / "0" / "results.json")["metrics"]
    assert torch.load(sweep / "0" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    running = read_json(second / "run.json")
    assert (running["status"], running["seed"], running["pid"]) == ("running", 2, process.pid)
    assert running["sweep"] == {"dir": str(sweep), "job": 1}
    assert not (sweep / "2").exists()


def wait_for_second(logs: Path, *, within: float) -> Path:
    """Return the folder of the second job as soon as its run.json exists."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        for record in logs.glob("train/multiruns/*/1/run.json"):
            assert json.loads(record.read_text())["status"] == "running"
            return record.parent
        time.sleep(0.02)
    raise AssertionError("the second job did not start")
