"""Out of memory with callbacks=oom_backoff: half the batch, twice the accumulation, once, and the run goes on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from fulgurite.callbacks.oom_backoff import rescale_counters
from fulgurite.core.errors import EXIT_CRASH
from fulgurite.runs.provenance import config_hash
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import only_run, read_json, run_cli
from tests.support.run_if import RunIf

DEVICE = "+callbacks.device={{_target_: tests.support.fake_oom.SmallDevice, largest: {}, from_step: {}, rank: {}}}"


def words(largest: int, from_step: int = 0, rank: str = "null") -> list[str]:
    """Return the overrides of a run on a small device."""
    return ["callbacks=oom_backoff", DEVICE.format(largest, from_step, rank), "extras.allowed_targets=[tests]"]


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(cfg: DictConfig) -> int:
    """Run as the command does and return the exit code."""
    try:
        train.run_job(cfg)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_run_out_of_memory_at_its_first_step_restarts_with_half_the_batch_size(
    small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small("data.batch_size=64", *words(largest=32))
    assert run(cfg) == 0
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("done", 0)
    assert record["oom_backoff"] == {"batch_size": [64, 32]}
    assert record["config_hash"] == config_hash(cfg)  # of what was asked for, so that resume=auto finds the run
    told = "restarting with data.batch_size=32 trainer.accumulate_grad_batches=2 from step 0"
    assert f"out of memory with data.batch_size=64: {told}" in caplog.text
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # as many steps of as many examples: 4 of 64
    progress = last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert progress["completed"] == 8
    assert not list((tmp_path / "run").glob(".out-of-memory*"))


def test_a_run_with_a_checkpoint_resumes_from_it_with_half_the_batch_size(small: ComposeSmall, tmp_path: Path) -> None:
    exact = ["resilience.exact_resume=true", "callbacks.last_checkpoint.every_n_train_steps=1", "trainer.max_epochs=2"]
    cfg = small(*exact, "trainer.limit_train_batches=1.0", "test=false", *words(largest=32, from_step=70))
    assert run(cfg) == 0
    record = read_json(tmp_path / "run/run.json")
    assert record["status"] == "done"
    (resumed,) = record["resumed"]
    assert resumed["step"] == 70  # amid the second epoch of 63 steps
    steps = [int(row["step"]) for row in rows(tmp_path / "run")]
    assert steps == sorted(set(steps))
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 126
    progress = last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert progress["completed"] == 125  # 4000 examples, 32 a batch: none twice, none left out


def test_the_second_out_of_memory_error_fails_the_run(small: ComposeSmall, tmp_path: Path) -> None:
    assert run(small("data.batch_size=64", *words(largest=16))) == EXIT_CRASH
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", EXIT_CRASH)
    assert record["oom_backoff"] == {"batch_size": [64, 32]}
    assert record["reason"].startswith("out of memory with data.batch_size=32: try data.batch_size=16")


def test_an_odd_batch_is_not_halved(small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(small("data.batch_size=33", *words(largest=16))) == EXIT_CRASH
    assert "callbacks.oom_backoff: no restart: data.batch_size=33 cannot be halved" in caplog.text
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["oom_backoff"]) == ("failed", None)


@pytest.mark.parametrize(("before", "now", "done"), [(64, 32, 14), (32, 64, 4), (64, 64, 7)])
def test_batch_counters_are_converted_to_another_batch_size(before: int, now: int, done: int) -> None:
    loader = {"batch_size": 64, "batches": 7, "seed": 1}
    loop: dict[str, Any] = {
        "epoch_loop.batch_progress": {
            "total": {"ready": 107, "completed": 106},
            "current": {"ready": 7, "completed": 6},
        },
        "state_dict": {"combined_loader": [loader]},
    }
    rescale_counters(loop, before, now)
    progress = loop["epoch_loop.batch_progress"]
    assert progress["total"] == {"ready": 100 + done, "completed": 99 + done}
    assert progress["current"] == {"ready": done, "completed": done - 1}
    assert (loader["batches"], loader["batch_size"]) == (done, 64 * now // before)


@RunIf(posix=True, path="/proc")
@pytest.mark.slow
@pytest.mark.parametrize("rank", ["null", "0", "1"])
def test_all_ranks_restart_when_any_rank_runs_out_of_memory(rank: str, tmp_path: Path) -> None:
    few = ["trainer.max_epochs=1", "+trainer.limit_train_batches=4", "+trainer.limit_val_batches=2", "test=false"]
    done = run_cli("train", "trainer=ddp_sim", "data.batch_size=64", *few, *words(16, rank=rank), logs=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path)
    record = read_json(folder / "run.json")
    assert (record["status"], record["ranks"]) == ("done", 2)
    assert record["oom_backoff"] == {"batch_size": [64, 32]}
    assert "Traceback" not in done.stderr
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert "batch_size: 64" in (folder / ".hydra/config.yaml").read_text()
    children = [stat.read_text() for stat in Path("/proc").glob("[0-9]*/cmdline") if stat.parent.exists()]
    assert not [command for command in children if str(tmp_path) in command]  # no process is left


@pytest.mark.slow
def test_a_sweep_job_restarts_alone(tmp_path: Path) -> None:
    few = ["trainer.max_epochs=1", "+trainer.limit_train_batches=2", "+trainer.limit_val_batches=2", "test=false"]
    done = run_cli("train", "-m", "data.batch_size=32,64", *few, *words(largest=32), logs=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = next((tmp_path / "train/multiruns").iterdir())
    records = [read_json(sweep / job / "run.json") for job in ("0", "1")]
    assert [record["status"] for record in records] == ["done", "done"]
    assert [record["oom_backoff"] for record in records] == [None, {"batch_size": [64, 32]}]
