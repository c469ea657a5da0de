"""Test `resume=`: in place, from weights, with a changed config, after damage."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.loggers.metrics_csv import drop_rows_from
from fulgurite.resume.config_diff import checkpoint_owner, diff_configs
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.runs.lock import is_locked, run_lock
from fulgurite.runs.run_directory import RunDirectory
from tests.support.cli import WarmProcess, only_run, read_json
from tests.support.project import ROOT
from tests.support.signals import members

QUICK = (
    "+trainer.limit_train_batches=3",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
    "extras.print_config=false",
    "resilience.exact_resume=true",
    "callbacks.progress_bar=null",
    "callbacks.model_summary=null",
    "trainer.enable_progress_bar=false",
    "callbacks.last_checkpoint.every_n_train_steps=1",
)


def start_cli(tmp_path: Path, *words: str, name: str = "train") -> WarmProcess:
    """Start a command with `paths.log_dir` in the test's folder."""
    return WarmProcess(name, [*words, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said")


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights_at(path: Path) -> dict[str, Any]:
    """Return a checkpoint's weights as bytes."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


def wait_for(path: Path, seconds: float = 60) -> None:
    """Wait until a file exists."""
    for _ in range(int(seconds * 100)):
        if path.is_file():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


def killed(tmp_path: Path, *words: str) -> Path:
    """Kill a run of many epochs once it has saved, and return its directory."""
    started = start_cli(tmp_path, *QUICK, *words)
    saved: list[Path] = []
    for _ in range(6000):
        saved = list(tmp_path.glob("logs/train/runs/*/checkpoints/last-previous.ckpt.json"))
        if saved:
            break
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait().returncode == -signal.SIGKILL
    return saved[0].parents[1]


def test_killed_and_the_same_command_with_auto_is_one_run_without_gap_or_double(tmp_path: Path) -> None:
    straight = start_cli(tmp_path / "straight", *QUICK, "trainer.max_epochs=8").wait()
    assert straight.returncode == 0, straight.stderr
    run = killed(tmp_path, "trainer.max_epochs=8", "+trainer.limit_predict_batches=1")  # another hash: not the same run
    assert start_cli(tmp_path, *QUICK, "trainer.max_epochs=8", "resume=auto").wait().returncode == 0
    assert len(list(tmp_path.glob("logs/train/runs/*"))) == 2
    assert read_json(run / "run.json")["status"] == "running"  # nobody could write that it was killed

    done = start_cli(tmp_path, *QUICK, "trainer.max_epochs=8", "+trainer.limit_predict_batches=1", "resume=auto").wait()
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("logs/train/runs/*"))) == 2
    other = only_run(tmp_path / "straight/logs")
    assert rows_of(run) == rows_of(other)
    assert read_json(run / "results.json") == read_json(other / "results.json")
    for name in ("last.ckpt", Path(read_json(run / "results.json")["weights"]).name):
        assert weights_at(run / "checkpoints" / name) == weights_at(other / "checkpoints" / name)
    record = read_json(run / "run.json")
    assert (record["status"], record["exit_code"]) == ("done", 0)
    [again] = record["resumed"]
    assert again["step"] > 0
    assert again["checkpoint"] == "last.ckpt"
    assert again["command"][-2] == "resume=auto"
    assert "resuming" in (run / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_sigterm_on_make_train_and_the_same_command_again_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    words = [*QUICK, "trainer.max_epochs=100", "~callbacks.early_stopping", "resume=auto"]
    straight = start_cli(tmp_path / "straight", *words).wait()
    assert straight.returncode == 0, straight.stderr

    command = ["make", "train", "ARGS=" + shlex.join([*words, f"paths.log_dir={tmp_path}/logs"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as made:
        for _ in range(6000):
            if list(tmp_path.glob("logs/train/runs/*/checkpoints/last-previous.ckpt.json")):
                break
            time.sleep(0.01)
        made.terminate()
    while members(made.pid):  # make does not wait for what it started
        time.sleep(0.01)
    run = only_run(tmp_path / "logs")
    record = read_json(run / "run.json")
    assert (record["status"], record["exit_code"]) == ("killed", 143)
    step = read_json(run / "checkpoints/last.ckpt.json")["step"]
    assert record["reason"] == f"terminated (SIGTERM), saved at step {step} in checkpoints/last.ckpt"
    assert 0 < step < 300

    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=240)
    assert only_run(tmp_path / "logs") == run
    other = only_run(tmp_path / "straight/logs")
    assert [int(row["step"]) for row in rows_of(run)] == sorted({*range(2, 300, 3), *range(49, 300, 50), 300})
    assert rows_of(run) == rows_of(other)
    assert read_json(run / "results.json") == read_json(other / "results.json")
    assert weights_at(run / "checkpoints/last.ckpt") == weights_at(other / "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for two epochs, and return the folder that holds `logs/`."""
    folder = tmp_path_factory.mktemp("finished")
    done = start_cli(folder, *QUICK, "trainer.max_epochs=2", "+tags.old=true", "~callbacks.early_stopping").wait()
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_directory_alone_brings_its_config_back(finished: Path, tmp_path: Path) -> None:
    run = only_run(finished / "logs")
    before = rows_of(run)
    record = read_json(run / "run.json")
    record["git"] = {"commit": "0" * 40, "dirty": False}
    (run / "run.json").write_text(json.dumps(record))
    done = WarmProcess("train", [f"resume={run}", "trainer.max_epochs=3"], tmp_path).wait()
    assert done.returncode == 0, done.stderr
    assert "resume: the code has changed since the run started: commit 000000000000 -> " in done.stderr
    assert "resume: trainer.max_epochs 2 -> 3 takes effect" in done.stderr
    cfg = OmegaConf.load(run / ".hydra/config.yaml")
    assert (cfg.trainer.max_epochs, cfg.trainer.limit_train_batches, cfg.tags.old) == (3, 3, True)
    assert "early_stopping" not in cfg.callbacks
    assert not (run / ".hydra/next").exists()
    rows = rows_of(run)
    assert rows[:2] == before[:2]
    assert [int(row["step"]) for row in rows] == [2, 5, 8, 9]
    # new overrides win over those of the run, also for keys that the run added with a plus
    words = expand_shorthands([f"resume={run}", "trainer.limit_train_batches=1", "tags.old=false"], "train")
    assert "++trainer.limit_train_batches=1" in words
    assert "++tags.old=false" in words
    assert not [word for word in words if word in {"+trainer.limit_train_batches=3", "+tags.old=true"}]


def test_eval_takes_config_and_best_weights_of_a_run(finished: Path, tmp_path: Path) -> None:
    run = only_run(finished / "logs")
    done = start_cli(tmp_path, f"run={run}", name="eval").wait()
    assert done.returncode == 0, done.stderr
    results = read_json(only_run(tmp_path / "logs", "eval") / "results.json")
    assert results["metrics"]["test/acc"] == read_json(run / "results.json")["metrics"]["test/acc"]
    assert results["weights"] == str(run / read_json(run / "results.json")["weights"])


@pytest.mark.parametrize("mode", ["weights", "hotstart"])
def test_a_new_run_starts_from_the_weights_of_another(mode: str, finished: Path, tmp_path: Path) -> None:
    run = only_run(finished / "logs")
    words = [f"resume={run}", f"resume.mode={mode}", "trainer.max_epochs=1", "model.optimizer.lr=0.0", "test=false"]
    done = start_cli(tmp_path, *words).wait()
    assert done.returncode == 0, done.stderr
    new = only_run(tmp_path / "logs")
    source = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    made = torch.load(new / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(run / read_json(run / "results.json")["weights"], weights_only=True)
    expected = source if mode == "hotstart" else best
    for name, value in made["state_dict"].items():
        if name.startswith("net.") and "running" not in name and "num_batches" not in name:
            assert torch.equal(value, expected["state_dict"][name]), name  # a learning rate of 0 left them as they came
    steps = int(made["optimizer_states"][0]["state"][0]["step"])
    assert made["global_step"] == 3
    assert steps == (source["global_step"] + 3 if mode == "hotstart" else 3)
    assert read_json(new / "run.json")["resumed"] == []


REFUSED = [
    ("model.optimizer.lr=0.5", "model.optimizer.lr 0.001 -> 0.5: the checkpoint restores the old value."),
    ("seed=7", "seed 42 -> 7: the batches would differ from those already counted."),
    ("data.batch_size=32", "data.batch_size 64 -> 32: the batches would differ from those already counted."),
    ("resume.apply=[trainer.max_epochs]", "resume.apply=[trainer.max_epochs]: not a setting of an optimizer"),
    ("model.optimizer._target_=torch.optim.SGD", "or pass resume.reset=[optimizer]."),
]


def test_an_override_without_effect_is_rejected_and_the_run_is_unchanged(finished: Path, tmp_path: Path) -> None:
    run = only_run(finished / "logs")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".log"}
    done = WarmProcess("train", [f"resume={run}", *(word for word, _ in REFUSED)], tmp_path).wait()
    assert done.returncode == 2
    for _, line in REFUSED:
        assert line in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_fewer_epochs_than_the_run_has_trained_are_refused_and_the_run_is_unchanged(
    finished: Path, tmp_path: Path
) -> None:
    run = only_run(finished / "logs")
    epochs = 1 + json.loads((run / "checkpoints" / "last.ckpt.json").read_text())["epoch"]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".log"}
    done = WarmProcess("train", [f"resume={run}", f"trainer.max_epochs={epochs - 1}"], tmp_path).wait()
    assert done.returncode == 2
    assert (
        f"trainer.max_epochs={epochs - 1}: the run is in epoch {epochs - 1}, counted from 0. Set {epochs} or more."
        in done.stderr
    )
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_new_learning_rate_takes_effect_when_it_is_asked_for(tmp_path: Path) -> None:
    assert start_cli(tmp_path, *QUICK, "trainer.max_epochs=1", "test=false").wait().returncode == 0
    run = only_run(tmp_path / "logs")
    again = [f"resume={run}", "trainer.max_epochs=2", "model.optimizer.lr=0.5", "resume.apply=[model.optimizer.lr]"]
    done = WarmProcess("train", again, tmp_path / "said").wait()
    assert done.returncode == 0, done.stderr
    [group] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 0.5
    # a job script repeats the override, which is now the run's own value
    done = WarmProcess("train", [*again, "trainer.max_epochs=3"], tmp_path / "said").wait()
    assert done.returncode == 0, done.stderr
    assert "model.optimizer.lr" not in done.stderr
    reset = [f"resume={run}", "trainer.max_epochs=4", "resume.reset=[optimizer]"]
    assert WarmProcess("train", reset, tmp_path / "said").wait().returncode == 0
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert int(state[0]["step"]) == 3  # of 12: it was reset


def test_a_damaged_last_checkpoint_is_passed_over_under_auto_and_refused_where_the_run_is_named(tmp_path: Path) -> None:
    assert start_cli(tmp_path, *QUICK, "trainer.max_epochs=2").wait().returncode == 0
    run = only_run(tmp_path / "logs")
    record = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "status": "running", "exit_code": None}))
    last = run / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    done = WarmProcess("train", [f"resume={run}"], tmp_path / "said").wait()
    assert done.returncode == 2
    assert f"{last}: its sha256 is" in done.stderr
    assert "last-previous.ckpt" in done.stderr
    done = start_cli(tmp_path, *QUICK, "trainer.max_epochs=2", "resume=auto").wait()
    assert done.returncode == 0, done.stderr
    assert f"warning: {last}: its sha256 is" in done.stderr
    [again] = read_json(run / "run.json")["resumed"]
    assert again["checkpoint"] == "last-previous.ckpt"
    assert [int(row["step"]) for row in rows_of(run)] == [2, 5, 6]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["resume=nowhere"], "resume=nowhere: there is no such folder. Name a run directory"),
        (["resume=last"], "holds no interrupted run. Start one without resume"),
        (["-m", "resume=last", "seed=1,2"], "resume=last: a sweep starts several runs. Remove resume, or remove -m."),
        (["resume=auto", "resume.mode=weights"], "Name the run that holds the weights: resume=<run directory>."),
        (["resume=auto", "resume.mode=weigts"], "must be 'continue', 'hotstart' or 'weights'"),
        (["resume=auto", "resume.reset=[optimiser]"], "must be a list ('optimizer' or 'scheduler')"),
        (["resume=auto", "resume.appli=[x]"], "Did you mean 'resume.apply'?"),
    ],
)
def test_an_argument_that_names_no_run_is_rejected_in_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = start_cli(tmp_path, *words).wait()
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "logs").glob("*/*/*"))


def test_a_run_locked_by_a_live_process_cannot_be_resumed(tmp_path: Path) -> None:
    first = start_cli(tmp_path, *QUICK, "trainer.max_epochs=100000", "hydra.run.dir=" + str(tmp_path / "run"))
    wait_for(tmp_path / "run/checkpoints/last.ckpt.json")
    done = WarmProcess("train", [f"resume={tmp_path}/run"], tmp_path / "second").wait()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert done.returncode == 2
    assert f"this run is locked by process {first.pid}." in done.stderr
    assert not is_locked(tmp_path / "run")


def test_a_run_directory_is_locked_by_one_process_until_it_dies(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(0 if is_locked(tmp_path) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        child = os.fork()
        if child == 0:
            try:
                with run_lock(tmp_path):
                    os._exit(1)
            except UserError as error:
                os._exit(0 if str(os.getppid()) in str(error) else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not is_locked(tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder of four runs, oldest first: done, killed, diverged, dead while running."""
    ends = [("done", 0), ("killed", 143), ("failed", 3), ("running", None)]
    for number, (status, code) in enumerate(ends):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(
            f'{{"status": "{status}", "exit_code": {code if code is not None else "null"}}}'
        )
        os.utime(folder / "run.json", (number, number))
    (tmp_path / "runs/broken").mkdir()
    (tmp_path / "runs/broken/run.json").write_text("{")
    return tmp_path / "runs"


def test_resumable_runs_are_those_that_were_killed_or_failed(runs: Path) -> None:
    found = list(RunDirectory.newest_first(runs))
    assert [run.folder.name for run in found] == ["3", "2", "1", "0"]
    assert [run.is_resumable() for run in found] == [True, False, True, False]


@pytest.mark.parametrize(
    ("with_checkpoint", "chosen", "skipped"), [([], "3", []), (["1"], "1", ["4", "3"]), (["1", "3"], "3", ["4"])]
)
def test_the_run_to_resume_is_the_newest_with_a_checkpoint_else_the_newest_that_began(
    with_checkpoint: list[str], chosen: str, skipped: list[str], runs: Path
) -> None:
    (runs / "4").mkdir()
    (runs / "4/run.json").write_text('{"status": "failed", "exit_code": 2, "reason": "model.lr=x: is not a number"}')
    for name in with_checkpoint:
        (runs / name / "checkpoints").mkdir()
        (runs / name / "checkpoints/last.ckpt").touch()
    run, newer = RunDirectory.newest_resumable(RunDirectory.newest_first(runs))
    assert run is not None
    assert run.folder.name == chosen
    assert [each.folder.name for each in newer] == (skipped or ["4"])


def test_runs_that_were_refused_are_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "failed", "exit_code": 2}')
    assert RunDirectory.newest_resumable([RunDirectory(tmp_path)]) == (None, [])


def test_last_names_the_newer_runs_without_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, ending in enumerate(['"killed"', '"failed", "exit_code": 2, "reason": "model.lr=x: is wrong"']):
        run = tmp_path / f"train/runs/{number}"
        (run / ".hydra").mkdir(parents=True)
        (run / "run.json").write_text(f'{{"status": {ending}}}')
        (run / ".hydra/overrides.yaml").write_text("[]\n")
        (run / ".hydra/hydra.yaml").write_text("hydra: {overrides: {hydra: []}}\n")
        os.utime(run / "run.json", (number, number))
    (tmp_path / "train/runs/0/checkpoints").mkdir()
    (tmp_path / "train/runs/0/checkpoints/last.ckpt").touch()
    overrides = expand_shorthands(["resume=last", f"paths.log_dir={tmp_path}"], "train")
    assert f"resume.run='{tmp_path}/train/runs/0'" in overrides
    newer = f"{tmp_path}/train/runs/1"
    assert capsys.readouterr().err == (
        f"resume=last: skipped {newer}, which has no checkpoint (model.lr=x: is wrong)\n"
    )


@pytest.mark.parametrize(("reset", "keeps"), [([], True), (["optimizer"], True), (["optimizer", "scheduler"], False)])
def test_a_learning_rate_of_the_model_is_reported_as_kept_unless_its_states_are_reset(
    reset: list[str], keeps: bool
) -> None:
    saved = OmegaConf.create({"model": {"lr": 0.1}, "resume": {}})
    now = OmegaConf.create({"model": {"lr": 0.2}, "resume": {"reset": reset, "apply": []}})
    (line,) = diff_configs(saved, now).takes_effect
    assert line.startswith("model.lr 0.1 -> 0.2 takes effect if the weights fit; the run no longer matches")
    assert ("Its optimizers and schedulers keep the settings of the checkpoint" in line) is keeps


def test_rows_from_the_step_on_are_cut_and_a_torn_line_too(tmp_path: Path) -> None:
    text = "epoch,step,a\n0,2,1.5\n1,5,2.5\n2,8,3.5\n2,"
    (tmp_path / "metrics.csv").write_text(text)
    assert drop_rows_from(tmp_path, 6) == 2
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step,a\n0,2,1.5\n1,5,2.5\n"
    assert drop_rows_from(tmp_path, 0) == 2
    assert not (tmp_path / "metrics.csv").exists()
    assert drop_rows_from(tmp_path, 0) == 0


def test_the_owner_of_a_checkpointed_key_is_found_by_its_target() -> None:
    adam = {"_target_": "torch.optim.Adam", "lr": 0.1}
    plateau = {"_target_": "torch.optim.lr_scheduler.StepLR", "gamma": 0.1}
    config = {"model": {"critic": {"optim": adam}, "scheduler": plateau, "lr": 3}}
    assert checkpoint_owner("model.critic.optim.lr", config) == "optimizer"
    assert checkpoint_owner("model.scheduler.gamma", config) == "scheduler"
    assert checkpoint_owner("model.lr", config) is None


def test_secrets_are_masked_in_a_config_diff() -> None:
    saved = OmegaConf.create({"logger": {"comet": {"api_key": "abc"}}, "resume": {}})
    now = OmegaConf.create({"logger": {"comet": {"api_key": "xyz"}}, "resume": {"reset": [], "apply": []}})
    assert diff_configs(saved, now).takes_effect == ["logger.comet.api_key *** -> *** takes effect"]
