"""A resumed run resumes the runs of its loggers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.loggers.adapters import resume_loggers
from tests.support.cli import WarmProcess, only_run, read_json
from tests.support.http_server import PostServer
from tests.support.run_if import RunIf

# 3 epochs of 4 steps; the run fails in the third and resumes from the end of the second
OVERRIDES = (
    "seed=0",
    "test=false",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "+trainer.limit_train_batches=4",
    "+trainer.limit_val_batches=1",
    "extras.print_config=false",
    "extras.allowed_targets=[tests]",
    "+callbacks.fail={_target_: tests.support.fake_loggers.FailAt, step: 10}",
    "+callbacks.rate={_target_: lightning.pytorch.callbacks.LearningRateMonitor, logging_interval: step}",
)
RATE = "lr-Adam"
STEP = 8


def _fail_and_resume(folder: Path, *overrides: str) -> Path:
    failed = WarmProcess("train", [*OVERRIDES, *overrides, f"paths.log_dir={folder}/logs"], folder / "output").wait()
    assert failed.returncode == 1, failed.stderr
    run = only_run(folder / "logs")
    done = WarmProcess("train", [f"resume={run}", "callbacks.fail.step=100"], folder / "output").wait()
    assert done.returncode == 0, done.stderr
    assert read_json(run / "run.json")["resumed"][0]["step"] == STEP
    return run


@RunIf(package="tensorboard")
def test_files_and_services_resume_at_the_step_of_the_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    with PostServer() as server:
        overrides = ("logger=[csv,tensorboard]", "logger.csv.version=null", "logger.tensorboard.version=null")
        posting = f"+logger.posting={{_target_: tests.support.fake_loggers.AimLogger, port: {server.port}}}"
        run = _fail_and_resume(tmp_path, *overrides, posting)
    assert read_json(run / "run.json")["loggers"] == {"csv": "0", "tensorboard": "0", "posting": "run-1"}

    with (run / "csv/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row[RATE]] == list(range(12))
    assert [int(row["step"]) for row in rows if row["val/acc"]] == [3, 7, 11]

    events = EventAccumulator(str(run / "tensorboard/version_0")).Reload()
    assert [event.step for event in events.Scalars(RATE)] == list(range(12))
    assert [event.step for event in events.Scalars("val/acc")] == [3, 7, 11]
    assert len(list((run / "tensorboard/version_0").glob("events.*"))) == 2

    # a service keeps the steps after the checkpoint, and gets them again
    sent = [body["step"] for body in server.bodies if RATE in body]
    assert sent == [*range(10), *range(STEP, 12)]
    assert [body["run"] for body in server.bodies if body["call"] == "open"] == [None, "run-1"]


@pytest.mark.slow
@RunIf(package="mlflow")
def test_mlflow_resumes_its_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run = _fail_and_resume(tmp_path, "logger=mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'train'")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == read_json(run / "run.json")["loggers"]["mlflow"]
    assert found.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(found.info.run_id, RATE)]
    assert sorted(steps) == sorted([*range(10), *range(STEP, 12)])
    # MLflow keeps the first value of a parameter
    assert found.data.params["callbacks/fail/step"] == "10"
    assert not (run / "undelivered-mlflow.jsonl").exists()


@pytest.mark.slow
@RunIf(package="wandb")
def test_wandb_resumes_its_run(tmp_path: Path) -> None:
    run = _fail_and_resume(tmp_path, "logger=wandb", "logger.wandb.offline=true")
    identity = read_json(run / "run.json")["loggers"]["wandb"]
    folders = list((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert {folder.name.rpartition("-")[2] for folder in folders} == {identity}
    assert not (run / "undelivered-wandb.jsonl").exists()


def _group(name: str, **config: Any) -> DictConfig:
    return OmegaConf.create({"mine": {"_target_": name, **config}})


@pytest.mark.parametrize(
    ("kind", "logger_id", "added"),
    [
        ("lightning.pytorch.loggers.MLFlowLogger", "abc", {"run_id": "abc"}),
        ("lightning.pytorch.loggers.WandbLogger", "abc", {"id": "abc", "resume": "allow"}),
        ("lightning.pytorch.loggers.CometLogger", "abc", {"experiment_key": "abc"}),
        ("aim.pytorch_lightning.AimLogger", "abc", {"run_hash": "abc"}),
        ("lightning.pytorch.loggers.TensorBoardLogger", "2", {"version": 2, "purge_step": 7}),
        ("lightning.pytorch.loggers.TensorBoardLogger", "", {"purge_step": 7}),
        (
            "lightning.pytorch.loggers.CSVLogger",
            "night",
            {"_target_": "fulgurite.loggers.metrics_csv.AppendingCSVLogger", "version": "night", "first_step": 7},
        ),
    ],
)
def test_each_logger_gets_its_resume_arguments(kind: str, logger_id: str, added: dict[str, Any]) -> None:
    group = _group(kind)
    group_now = resume_loggers(OmegaConf.create({"logger": group}), {"mine": logger_id, "other": "x"}, step=7)
    assert group_now == {"mine": {"_target_": kind, **added}}
    assert group == _group(kind)


def test_the_users_arguments_of_a_logger_stay(caplog: pytest.LogCaptureFixture) -> None:
    group = _group("lightning.pytorch.loggers.WandbLogger", id="mine", resume="must")
    assert resume_loggers(OmegaConf.create({"logger": group}), {"mine": "abc"}, step=7) == group
    assert resume_loggers(OmegaConf.create({"logger": None}), {}, step=7) is None
    with caplog.at_level("INFO"):
        own = _group("my.OwnLogger", id=None)
        assert resume_loggers(OmegaConf.create({"logger": own}), {"mine": "abc"}, step=7) == own
    assert "mine: cannot resume a logger of this class" in caplog.text
