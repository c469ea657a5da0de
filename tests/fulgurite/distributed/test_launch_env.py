"""Every launcher starts one run, with one directory, one config and the same results."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL
from tests.support.cli import WarmProcess, only_run, read_json, run_cli
from tests.support.launcher_env import TWO, run_two
from tests.support.project import ROOT, readme

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("srun", "mpich", "openmpi")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two ranks that were started by hand."""
    folder = tmp_path_factory.mktemp("plain")
    both = run_two("by_hand", folder, *TWO, f"paths.log_dir={folder}/logs")
    assert [one.returncode for one in both] == [0, 0], both[0].stderr + both[1].stderr
    return only_run(folder / "logs")


@pytest.mark.parametrize("launcher", ["torchrun", *SLOW])
def test_ranks_of_a_launcher_are_one_run(launcher: str, plain: Path, tmp_path: Path) -> None:
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
@pytest.mark.parametrize("method", ["popen", "spawn", "fork"])
def test_ranks_that_rank_zero_starts_are_one_run(method: str, plain: Path, tmp_path: Path) -> None:
    done = run_cli("train", *TWO, f"trainer.strategy.start_method={method}", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_json(only_run(tmp_path) / "run.json")["ranks"] == 2
    assert read_json(only_run(tmp_path) / "results.json") == read_json(plain / "results.json")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("hydra/launcher=local", "would start all jobs"),
        ("hydra/sweeper=search", "would run its own search"),
    ],
)
def test_what_each_rank_would_do_separately_is_refused_in_one_line(override: str, problem: str, tmp_path: Path) -> None:
    of_rank_0 = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    torchrun = {**of_rank_0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29591", "TORCHELASTIC_RUN_ID": "none"}
    given = ["-m", override, "seed=1,2", f"paths.log_dir={tmp_path}/logs"]
    done = WarmProcess("train", given, tmp_path, env=torchrun).wait()
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    group = override.partition("=")[0]
    assert f"error: {group}: under torchrun each process {problem}. Start" in line
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("launcher", ["torchrun", SLOW[0]])
def test_a_sweep_under_a_launcher_has_one_directory_and_a_new_process_group_per_job(
    launcher: str, plain: Path, tmp_path: Path
) -> None:
    zero, one = run_two(launcher, tmp_path, "-m", *TWO, "seed=42,43", f"paths.log_dir={tmp_path}/logs")
    assert (zero.returncode, one.returncode) == (0, 0), zero.stderr + one.stderr
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    results = [read_json(sweep / name / "results.json")["metrics"] for name in "01"]
    assert results[0] == read_json(plain / "results.json")["metrics"]
    assert len({metrics["train/loss"] for metrics in results}) == 2
    started = [line for line in (sweep / "sweep.jsonl").read_text().splitlines() if '"started"' in line]
    assert len(started) == 2


@pytest.mark.slow
def test_a_run_stopped_by_a_signal_is_resumed_by_the_same_command_under_the_launcher(tmp_path: Path) -> None:
    send = "+callbacks.send={_target_: tests.support.signals.SendSignal, name: SIGTERM, at: 2, rank: 1}"
    overrides = (*TWO, "trainer.max_epochs=2", f"paths.log_dir={tmp_path}/logs", "resume=auto", send)
    both = run_two("torchrun", tmp_path, *overrides, "extras.allowed_targets=[tests]")
    run = only_run(tmp_path / "logs")
    record = read_json(run / "run.json")
    assert (record["status"], record["exit_code"]) == ("killed", 143), both[0].stderr
    assert record["reason"] == "terminated (SIGTERM), saved at step 4 in checkpoints/last.ckpt"
    both = run_two("torchrun", tmp_path, *overrides, "extras.allowed_targets=[tests]")
    assert [one.returncode for one in both] == [0, 0], both[0].stderr + both[1].stderr
    record = read_json(only_run(tmp_path / "logs") / "run.json")
    assert (record["status"], [start["step"] for start in record["resumed"]]) == ("done", [4])
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("command", re.findall(r"^torchrun .*|(?<=`)mpiexec [^`]+", readme(), re.MULTILINE))
def test_the_launchers_of_the_readme_start_one_run(command: str, plain: Path, tmp_path: Path) -> None:
    name, *overrides = shlex.split(command)
    if name == "mpiexec" and not shutil.which("mpiexec"):
        pytest.skip("needs mpiexec, e.g. of the package mpich")
    start = [sys.executable, "-m", "torch.distributed.run"] if name == "torchrun" else [name]
    overrides = [sys.executable if override == "python" else override for override in overrides]
    done = subprocess.run(
        [*start, *overrides, *SMALL, f"paths.log_dir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"2 processes started by {name}, backend gloo" in done.stderr
    assert read_json(only_run(tmp_path) / "results.json") == read_json(plain / "results.json")
