"""Scripts that start trainings for a person who is away: one after the other, or across the time limits of SLURM."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from tests.fulgurite.exact_resume.test_exact_resume import EPOCH, SMALL
from tests.support.project import ROOT
from tests.support.signals import End, ended, record_of

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="bash scripts"),
    pytest.mark.slow,
]
SEND = "+callbacks.send={{_target_:tests.support.signals.SendSignal,name:{},at:{},to:{},sleep:1}}"


def words_of(logs: Path, send: str) -> list[str]:
    """Return the words of a small training that saves between epochs only, and of the signal that it sends."""
    sparse = "callbacks.last_checkpoint.every_n_train_steps=null"
    return [*SMALL, sparse, f"paths.log_dir={logs}", "extras.allowed_targets=[tests]", send]


def runs_of(logs: Path) -> list[tuple[str, str | None, int]]:
    """Return how each run ended, the oldest first."""
    return [record_of(folder) for folder in sorted((logs / "train/runs").iterdir())]


def schedule(folder: Path, *trainings: list[str]) -> End:
    """Run the schedule of these trainings, and keep in a folder which are done."""
    env = {"PY": sys.executable, "SCHEDULE_DIR": str(folder)}
    return ended([str(ROOT / "scripts/schedule.sh"), *map(" ".join, trainings)], env=env)


@pytest.mark.parametrize("to", ["self", "parent"])
def test_a_schedule_ends_with_the_signalled_training_and_the_same_command_goes_on(to: str, tmp_path: Path) -> None:
    first = words_of(tmp_path / "a", SEND.format("SIGTERM", 8, to))
    second = words_of(tmp_path / "b", SEND.format("SIGTERM", 1000, to))
    end = schedule(tmp_path, second, first)
    assert (end.code, end.left) == (143, []), end.said
    assert "schedule: stopped in 2 of 2" in end.said
    saved = "terminated (SIGTERM), saved at step 8 in checkpoints/last.ckpt"
    assert runs_of(tmp_path / "a") == [("killed", saved, 143)]

    again = schedule(tmp_path, second, first)
    assert (again.code, again.left) == (0, []), again.said
    assert "schedule: 1 of 2 is done" in again.said
    assert not list(tmp_path.glob("*.done"))
    assert [runs_of(tmp_path / name) for name in "ab"] == [[("done", None, 0)]] * 2
    rows = []
    for name in "ab":
        [metrics] = (tmp_path / name).glob("train/runs/*/metrics.csv")
        with metrics.open(newline="") as file:
            rows.append([(row["step"], row["val/acc"], row["train/loss"]) for row in csv.DictReader(file)])
    assert [step for step, _, _ in rows[0]] == [*(str(epoch * EPOCH - 1) for epoch in (1, 2, 3)), str(3 * EPOCH)]
    assert rows[0] == rows[1]  # the stopped training and the one that was not


def test_a_training_that_fails_does_not_keep_the_next_from_running_and_its_exit_code_is_kept(tmp_path: Path) -> None:
    end = schedule(tmp_path, ["trainer.max_epoch=3"], words_of(tmp_path, SEND.format("SIGTERM", 1000, "self")))
    assert end.code == 2, end.said
    assert "schedule: 1 of 2 failed with exit code 2" in end.said
    [done] = tmp_path.glob("schedule-*.done")
    assert done.read_text() == "2\n"
    assert runs_of(tmp_path) == [("done", None, 0)]


def test_a_job_whose_time_is_over_is_put_back_and_goes_on_but_a_cancelled_one_is_not(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    asked = tmp_path / "asked"
    (tools / "scontrol").write_text(f'#!/usr/bin/env bash\necho "$*" >> "{asked}"\n')
    (tools / "scontrol").chmod(0o755)
    env = {"PY": sys.executable, "SLURM_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(ROOT)}

    def job(name: str, signal_name: str) -> End:
        words = words_of(tmp_path / name, SEND.format(signal_name, 8, "parent"))
        path = f"{tools}:/usr/bin:/bin"
        return ended(["bash", "scripts/slurm.sbatch", *words], env={**env, "PATH": path})

    assert job("cancelled", "SIGTERM").code == 143
    assert not asked.exists()
    over = job("over", "SIGUSR1")
    assert (over.code, over.left) == (143, []), over.said
    assert asked.read_text() == "requeue 77\n"
    saved = "terminated (SIGUSR1), saved at step 8 in checkpoints/last.ckpt"
    assert runs_of(tmp_path / "over") == [("killed", saved, 143)]
    again = job("over", "SIGUSR1")
    assert (again.code, again.left) == (0, []), again.said
    assert runs_of(tmp_path / "over") == [("done", None, 0)]
    assert asked.read_text() == "requeue 77\n"
