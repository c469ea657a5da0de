"""A run that goes on in its own directory takes its trackers' runs with it: read back from what they wrote."""

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

# 3 epochs of 4 steps; the run fails within the third and goes on from the end of the second
WORDS = (
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


def _failed_and_gone_on(folder: Path, *words: str) -> Path:
    failed = WarmProcess("train", [*WORDS, *words, f"paths.log_dir={folder}/logs"], folder / "said").wait()
    assert failed.returncode == 1, failed.stderr
    run = only_run(folder / "logs")
    done = WarmProcess("train", [f"resume={run}", "callbacks.fail.step=100"], folder / "said").wait()
    assert done.returncode == 0, done.stderr
    assert read_json(run / "run.json")["resumed"][0]["step"] == STEP
    return run


@RunIf(package="tensorboard")
def test_files_and_services_go_on_where_the_run_does(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    with PostServer() as server:
        words = ("logger=[csv,tensorboard]", "logger.csv.version=null", "logger.tensorboard.version=null")
        posting = f"+logger.posting={{_target_: tests.support.fake_loggers.AimLogger, port: {server.port}}}"
        run = _failed_and_gone_on(tmp_path, *words, posting)
    assert read_json(run / "run.json")["loggers"] == {"csv": "0", "tensorboard": "0", "posting": "run-1"}

    with (run / "csv/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row[RATE]] == list(range(12))
    assert [int(row["step"]) for row in rows if row["val/acc"]] == [3, 7, 11]

    events = EventAccumulator(str(run / "tensorboard/version_0")).Reload()
    assert [event.step for event in events.Scalars(RATE)] == list(range(12))
    assert [event.step for event in events.Scalars("val/acc")] == [3, 7, 11]
    assert len(list((run / "tensorboard/version_0").glob("events.*"))) == 2

    # a service keeps what it was told; what came after the checkpoint comes a second time
    sent = [body["step"] for body in server.bodies if RATE in body]
    assert sent == [*range(10), *range(STEP, 12)]
    assert [body["run"] for body in server.bodies if body["call"] == "open"] == [None, "run-1"]


@pytest.mark.slow
@RunIf(package="mlflow")
def test_mlflow_goes_on_with_its_run(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run = _failed_and_gone_on(tmp_path, "logger=mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'train'")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == read_json(run / "run.json")["loggers"]["mlflow"]
    assert found.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(found.info.run_id, RATE)]
    assert sorted(steps) == sorted([*range(10), *range(STEP, 12)])
    # a parameter of MLflow can be told once: the first value stays, and nothing is refused
    assert found.data.params["callbacks/fail/step"] == "10"
    assert not (run / "undelivered-mlflow.jsonl").exists()


@pytest.mark.slow
@RunIf(package="wandb")
def test_wandb_goes_on_with_its_run(tmp_path: Path) -> None:
    run = _failed_and_gone_on(tmp_path, "logger=wandb", "logger.wandb.offline=true")
    identity = read_json(run / "run.json")["loggers"]["wandb"]
    folders = list((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert {folder.name.rpartition("-")[2] for folder in folders} == {identity}
    assert not (run / "undelivered-wandb.jsonl").exists()


def _group(name: str, **config: Any) -> DictConfig:
    return OmegaConf.create({"mine": {"_target_": name, **config}})


@pytest.mark.parametrize(
    ("kind", "known", "added"),
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
            {"_target_": "fulgurite.loggers.appending_csv.AppendingCSVLogger", "version": "night", "before": 7},
        ),
    ],
)
def test_each_tracker_is_told_in_its_own_words(kind: str, known: str, added: dict[str, Any]) -> None:
    group = _group(kind)
    told = resume_loggers(OmegaConf.create({"logger": group}), {"mine": known, "other": "x"}, step=7)
    assert told == {"mine": {"_target_": kind, **added}}
    assert group == _group(kind)


def test_what_the_user_says_of_a_tracker_stays(caplog: pytest.LogCaptureFixture) -> None:
    group = _group("lightning.pytorch.loggers.WandbLogger", id="mine", resume="must")
    assert resume_loggers(OmegaConf.create({"logger": group}), {"mine": "abc"}, step=7) == group
    assert resume_loggers(OmegaConf.create({"logger": None}), {}, step=7) is None
    with caplog.at_level("INFO"):
        own = _group("my.OwnLogger", id=None)
        assert resume_loggers(OmegaConf.create({"logger": own}), {"mine": "abc"}, step=7) == own
    assert "mine: how this tracker goes on with its own run is not known" in caplog.text
