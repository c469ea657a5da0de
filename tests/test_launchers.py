"""However the processes of a run are started, they are one run with one directory, one config and the same results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.doors import only_run, read_json, run_door
from tests.launching import TWO, run_two

LAUNCHERS = ["torchrun", "srun", "mpich", "openmpi", "by_hand"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that rank 0 starts itself."""
    logs = tmp_path_factory.mktemp("plain")
    done = run_door("train", *TWO, logs=logs)
    assert done.returncode == 0, done.stderr
    return only_run(logs)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_that_a_launcher_has_started_are_one_run(launcher: str, plain: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    zero, one = run_two(launcher, tmp_path, *TWO, f"paths.log_dir={logs}")
    assert (zero.returncode, one.returncode) == (0, 0), zero.stderr + one.stderr
    run = only_run(logs)
    assert read_json(run / "run.json")["ranks"] == 2
    assert read_json(run / "run.json")["status"] == "done"
    assert read_json(run / "results.json") == read_json(plain / "results.json")
    assert [path.name for path in logs.iterdir()] == ["train"]
    assert one.stdout == ""
