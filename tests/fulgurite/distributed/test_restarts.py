"""torchrun restarts a run that lost a rank, and it resumes bit-identically."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.cli import only_run, read_json
from tests.support.faults import processes_with, with_fault
from tests.support.project import ROOT
from tests.support.run_if import RunIf

OVERRIDES = (
    "trainer=ddp_sim",
    "+trainer.limit_train_batches=6",
    "+trainer.limit_val_batches=2",
    "trainer.max_epochs=2",
    "callbacks.last_checkpoint.every_n_train_steps=2",
    "extras.print_config=false",
    "distributed.rank_timeout_seconds=60",
)


def torchrun(logs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run two processes of the command under torchrun, which restarts them at most twice."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    command = [sys.executable, *start, "src/train.py", *OVERRIDES, *overrides, f"paths.log_dir={logs}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
@RunIf(path="/proc/self/stat")
def test_a_run_that_torchrun_restarts_ends_as_one_that_lost_no_rank(tmp_path: Path) -> None:
    ended, said = {}, ""
    for name, fault in (("whole", "none"), ("broken", "SIGKILL")):
        done = torchrun(tmp_path / name, *with_fault(fault, rank=1, step=9))
        assert done.returncode == 0, done.stderr
        run = only_run(tmp_path / name)  # the second start went on in the directory of the first
        ended[name] = run
        assert read_json(run / "run.json")["status"] == "done"
        said = done.stderr
    errors = [line for line in said.splitlines() if "[ERROR]" in line]
    assert len(errors) == 1
    assert "rank 1 (pid " in errors[0]
    assert "exited without a reason: killed by a signal" in errors[0]
    assert [one["step"] for one in read_json(ended["broken"] / "run.json")["resumed"]] == [8]
    assert not (ended["whole"] / "ranks").exists()
    whole, broken = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in ended.values()
    )
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    assert read_json(ended["whole"] / "results.json") == read_json(ended["broken"] / "results.json")
    assert processes_with(str(tmp_path)) == []
