"""However the processes of a run are started, they are one run with one directory, one config and the same results."""

from __future__ import annotations

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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_that_rank_zero_forks_or_spawns_are_one_run(method: str, plain: Path, tmp_path: Path) -> None:
    done = run_door("train", *TWO, f"trainer.strategy.start_method={method}", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_json(only_run(tmp_path) / "run.json")["ranks"] == 2
    assert read_json(only_run(tmp_path) / "results.json") == read_json(plain / "results.json")


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_a_sweep_under_a_launcher_has_one_directory_a_job_and_leaves_each_job_a_clean_group(
    launcher: str, plain: Path, tmp_path: Path
) -> None:
    zero, one = run_two(launcher, tmp_path, "-m", *TWO, "seed=42,43,44", f"paths.log_dir={tmp_path}/logs")
    assert (zero.returncode, one.returncode) == (0, 0), zero.stderr + one.stderr
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1", "2"]
    results = [read_json(sweep / name / "results.json")["metrics"] for name in "012"]
    assert results[0] == read_json(plain / "results.json")["metrics"]
    assert len({metrics["train/loss"] for metrics in results}) == 3
    started = [line for line in (sweep / "sweep.jsonl").read_text().splitlines() if '"started"' in line]
    assert len(started) == 3
