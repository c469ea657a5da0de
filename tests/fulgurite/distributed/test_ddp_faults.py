"""Runs of two real ranks: one is killed, stopped or fails; used ports; concurrent runs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMALL
from tests.support.cli import only_run, read_json, run_cli
from tests.support.faults import processes_with, with_fault
from tests.support.project import ROOT
from tests.support.shapes.shape import Shape, use

TWO = ("trainer=ddp_sim", "+trainer.limit_train_batches=6", "+trainer.limit_val_batches=2", "extras.print_config=false")


def failed_run(tmp_path: Path, *overrides: str) -> tuple[str, Path]:
    """Run two ranks that must fail, check what holds for every failed run, and return the reason and the run."""
    done = run_cli("train", *TWO, *overrides, "trainer.max_epochs=4", logs=tmp_path, timeout=200)
    assert done.returncode == 1, done.stderr
    assert processes_with(str(tmp_path)) == []
    assert "Traceback" not in done.stderr
    assert "terminate called" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    record = read_json(only_run(tmp_path) / "run.json")
    assert (record["status"], record["exit_code"], record["ranks"]) == ("failed", 1, 2)
    assert line.endswith(record["reason"])
    return record["reason"], only_run(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_rank_fails_the_run_and_the_last_checkpoint_resumes_it(tmp_path: Path) -> None:
    reason, run = failed_run(tmp_path, *with_fault("SIGKILL", rank=1, step=8))
    assert "was killed by SIGKILL" in reason
    last = run / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6
    done = run_cli("train", *SMALL[1:], f"ckpt_path={last}", "trainer.max_epochs=2", logs=tmp_path / "on")
    assert done.returncode == 0, done.stderr
    resumed = only_run(tmp_path / "on") / "checkpoints" / "last.ckpt"
    assert torch.load(resumed, weights_only=True)["global_step"] == 10


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_raises_fails_the_run_with_its_error_and_the_log_has_its_traceback(tmp_path: Path) -> None:
    reason, run = failed_run(tmp_path, *with_fault("ValueError", rank=1, step=8))
    assert reason.startswith("rank 1 failed: ValueError: a fault of this process alone")
    assert reason.endswith("(traceback in train.rank1.log)")
    text = (run / "train.rank1.log").read_text()
    assert 'raise getattr(builtins, self.what)("a fault of this process alone")' in text
    assert read_json(run / "ranks" / "1.json")["secondary"] is False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_exits_without_reporting_a_reason_fails_the_run(tmp_path: Path) -> None:
    reason, _ = failed_run(tmp_path, *with_fault("exit", rank=1, step=8))
    assert "rank 1 (pid " in reason
    assert "exited with code 7 without reporting a reason" in reason


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_exits_with_code_0_amid_training_fails_the_run(tmp_path: Path) -> None:
    reason, _ = failed_run(tmp_path, *with_fault("exit 0", rank=1, step=8))
    assert re.fullmatch(
        r"rank 1 \(pid \d+\) exited with code 0 while rank 0 waited for it. "
        r"Remove os._exit from the code that it runs.",
        reason,
    )


UNEVEN = "tests.support.uneven_ranks.UnevenData"
SKIPS = "tests.support.uneven_ranks.SkipsRest"
OWN_BATCHES = "+trainer.use_distributed_sampler=false"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            {"data": use(UNEVEN, short=0)},
            "data: the training loader has 4 batches on rank 0 and 6 on rank 1. Set trainer.limit_train_batches=4, ",
        ),
        (
            {"data": use(UNEVEN, short=0, form="stream")},
            "data: epoch 0 has 4 training batches on rank 0 and more on rank 1. Set trainer.limit_train_batches to ",
        ),
        (
            {"data": use(UNEVEN, short=1, form="stream")},
            "data: epoch 0 has 4 training batches on rank 1 and more on rank 0. Set trainer.limit_train_batches to ",
        ),
        (
            {"data": use(UNEVEN, short=1, form="wrong"), "overrides": [OWN_BATCHES]},
            "data: epoch 0 has 4 training batches on rank 1 and more on rank 0. Set trainer.limit_train_batches to ",
        ),
        (
            {"model": use(SKIPS, short=1)},
            "model: on_train_batch_start returned -1 at batch 2 of epoch 0 on rank 1 and not on rank 0. Return the ",
        ),
        (
            {"model": use(SKIPS, short=1, how="stop"), "overrides": ["trainer.min_epochs=0"], "save_every": 50},
            "trainer.should_stop: is set after 3 batches of epoch 0 on rank 1 and not on rank 0. Set it on all ranks",
        ),
        (
            {"model": use(SKIPS, short=1, how="stop"), "overrides": ["trainer.min_epochs=1"], "save_every": 50},
            "trainer.should_stop: ends the training after epoch 0 on rank 1 and not on rank 0. Set it on all ranks",
        ),
    ],
    ids=[
        "sized",
        "stream of rank 0",
        "stream of rank 1",
        "wrong length",
        "skips the rest",
        "stops amid an epoch",
        "stops",
    ],
)
def test_unequal_numbers_of_batches_are_refused(code: dict[str, Any], problem: str, tmp_path: Path) -> None:
    arguments = Shape("uneven", "ranks", **code).arguments()
    done = run_cli("train", *arguments, *TWO[:1], "~callbacks.recorder", logs=tmp_path, timeout=200)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    assert problem in line
    assert processes_with(str(tmp_path)) == []
    record = read_json(only_run(tmp_path) / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "code",
    [
        {"data": use(UNEVEN, short=None, form="stream")},
        {"model": use(SKIPS, short=None)},
        {"model": use(SKIPS, short=None, how="stop"), "overrides": ["trainer.min_epochs=0"]},
    ],
    ids=["stream", "skips the rest", "stops"],
)
def test_equal_ends_of_epochs_train_on_two_ranks(code: dict[str, Any], tmp_path: Path) -> None:
    arguments = Shape("even", "ranks", **code).arguments()
    done = run_cli("train", *arguments, *TWO[:1], "~callbacks.recorder", logs=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    assert not (only_run(tmp_path) / "ranks").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc for the state of a process")
def test_a_stopped_rank_fails_the_run_after_the_timeout(tmp_path: Path) -> None:
    # the time holds for the start too, where the second process imports torch on a loaded machine
    reason, _ = failed_run(tmp_path, *with_fault("SIGSTOP", rank=1, step=8), "distributed.rank_timeout_seconds=40")
    assert reason.startswith("rank 1 (pid ")
    assert reason.endswith("is stopped (SIGSTOP) and does not respond")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_late_rank_fails_the_run_after_the_timeout(tmp_path: Path) -> None:
    reason, _ = failed_run(tmp_path, *with_fault("late", rank=1, step=8), "distributed.rank_timeout_seconds=40")
    assert re.fullmatch(
        r"rank 1 \(pid \d+\) did not respond within 40 s. Raise distributed.rank_timeout_seconds.",
        reason,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [("SIGKILL", "running", ""), ("SIGSTOP", "failed", "is stopped (SIGSTOP) and does not respond")],
)
def test_without_rank_zero_the_other_ranks_exit(sent: str, status: str, reason: str, tmp_path: Path) -> None:
    overrides = (*TWO, *with_fault(sent, rank=0, step=8), "trainer.max_epochs=4", "distributed.rank_timeout_seconds=40")
    done = run_cli("train", *overrides, logs=tmp_path, timeout=200)
    assert done.returncode == -signal.SIGKILL
    assert processes_with(str(tmp_path)) == []
    record = read_json(only_run(tmp_path) / "run.json")
    assert record["status"] == status
    assert reason in (record["reason"] or "")
    with pytest.raises(ProcessLookupError):
        os.kill(record["pid"], 0)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_used_port_exits_with_one_line_and_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        done = run_cli("train", *TWO, logs=tmp_path, timeout=100)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    assert f"MASTER_PORT={port}: another process listens on this port" in line
    assert "Traceback" not in done.stderr
    record = read_json(only_run(tmp_path) / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert processes_with(str(tmp_path)) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_concurrent_runs_do_not_interfere(tmp_path: Path) -> None:
    command = [sys.executable, "src/train.py", *TWO, "trainer.max_epochs=1", f"paths.log_dir={tmp_path}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [*command, f"seed={seed}"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for seed in (1, 2)
    ]
    said = [process.communicate(timeout=200)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "terminate called" not in "".join(said)
    runs = sorted((tmp_path / "train" / "runs").iterdir())
    assert [read_json(run / "run.json")["status"] for run in runs] == ["done", "done"]
    assert {read_json(run / "run.json")["seed"] for run in runs} == {1, 2}
    assert not any((run / "ranks").exists() for run in runs)
    assert processes_with(str(tmp_path)) == []
