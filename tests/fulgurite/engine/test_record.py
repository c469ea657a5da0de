"""Test run.json, metrics.csv and the hyperparameters in each logger."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import DiskFull, UserError
from fulgurite.core.redact import mask_config
from fulgurite.engine.components.monitored import require_metric
from fulgurite.engine.record import RunRecord
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from fulgurite.runs.provenance import config_hash, git_state
from src.eval import evaluate
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import read_json
from tests.support.disk_full import largest_file
from tests.support.run_if import RunIf


def test_metrics_of_one_step_share_a_row_and_new_columns_keep_old_rows(tmp_path: Path) -> None:
    file = MetricsCSVLogger(tmp_path)
    file.log_metrics({"epoch": 0, "train/loss": 1.5}, step=1)
    file.log_metrics({"epoch": 0, "val/loss": 2.5}, step=1)
    file.log_metrics({"epoch": 1, "train/loss": 0.5}, step=2)
    file.log_metrics({"epoch": 1, "val/loss": 1.0, "val/acc": 0.25}, step=2)
    with (tmp_path / "metrics.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert rows == [
        {"epoch": "0", "step": "1", "train/loss": "1.5", "val/loss": "2.5", "val/acc": ""},
        {"epoch": "1", "step": "2", "train/loss": "0.5", "val/loss": "1.0", "val/acc": "0.25"},
    ]


def test_a_second_start_in_the_same_directory_goes_on_below(tmp_path: Path) -> None:
    MetricsCSVLogger(tmp_path).log_metrics({"epoch": 0, "train/loss": 1.5}, step=1)
    again = MetricsCSVLogger(tmp_path)
    again.log_metrics({"epoch": 1, "val/acc": 0.5}, step=2)
    again.log_metrics({"train/loss": 0.5}, step=2)
    with (tmp_path / "metrics.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["step"], row["train/loss"], row["val/acc"]) for row in rows] == [("1", "1.5", ""), ("2", "0.5", "0.5")]


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    file = MetricsCSVLogger(tmp_path)
    for step in range(3):
        file.log_metrics({"loss": float(step)}, step=step)
        assert (tmp_path / "metrics.csv").read_text().splitlines()[-1] == f",{step},{float(step)}"


def test_a_missing_metric_is_named_with_the_nearest_one() -> None:
    assert require_metric("val/acc", {"val/acc": 0.5}) == 0.5
    with pytest.raises(UserError, match=r"optimized_metric=val/acc_bst: .* Did you mean 'val/acc_best'"):
        require_metric("val/acc_bst", {"val/acc_best": 0.5})


@pytest.mark.parametrize(("metric", "epochs"), [("val/acc_bst", set()), ("acc_best", {"0"})])
def test_an_optimized_metric_that_is_not_logged_stops_the_run_early(
    small: ComposeSmall, tmp_path: Path, metric: str, epochs: set[str]
) -> None:
    with pytest.raises(UserError, match=f"optimized_metric={metric}"):
        train(small(f"optimized_metric={metric}", "trainer.max_epochs=50"))
    rows = load_run_rows(tmp_path / "run") if (tmp_path / "run/metrics.csv").is_file() else []
    assert {row["epoch"] for row in rows} == epochs
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert "val/acc_best" in record["reason"]


def load_run_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_crash_keeps_its_traceback_and_says_failed(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("src.models.classifier.Classifier.training_step", broken)
    with pytest.raises(ZeroDivisionError):
        train(small())
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 1)
    assert record["reason"] == "ZeroDivisionError: a bug of ours"
    assert "Traceback" in caplog.text
    assert "in broken" in caplog.text


def test_the_record_says_what_ran(small: ComposeSmall, tmp_path: Path) -> None:
    record = RunRecord(small("seed=0", "+tags.ablation=true")).fields
    assert record["seed"] == 0
    assert record["tags"] == ["dev", "ablation"]
    assert record["status"] == "running"
    assert record["versions"]["lightning"].startswith("2.")
    assert json.loads((tmp_path / "run/run.json").read_text()) == record


def test_git_state_is_none_outside_a_checkout(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


def test_the_config_hash_changes_with_the_result_and_not_with_the_place(small: ComposeSmall, tmp_path: Path) -> None:
    base = config_hash(small())
    assert config_hash(small(folder=tmp_path / "elsewhere")) == base
    assert config_hash(small("tags=[other]", "extras.print_config=true")) == base
    assert config_hash(small("model.optimizer.lr=0.1")) != base
    assert config_hash(small("seed=0")) != base


CANARY = "canary-5f1c"


def test_a_value_from_the_environment_is_shown_nowhere(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", CANARY)
    cfg = small(
        "logger=csv",
        "logger.csv.prefix=${oc.env:MY_TOKEN}",
        "extras.print_config=true",
        "test=false",
    )
    assert mask_config(cfg)["logger"]["csv"]["prefix"] == "***"
    OmegaConf.set_struct(cfg, False)
    by_reference = OmegaConf.merge(cfg, {"note": "see ${logger.csv.prefix}", "list": ["${oc.env:MY_TOKEN}"]})
    assert isinstance(by_reference, DictConfig)
    assert (mask_config(by_reference)["note"], mask_config(by_reference)["list"]) == ("see ***", ["***"])
    train(cfg)
    shown = capsys.readouterr()
    assert CANARY not in shown.out + shown.err
    for path in (tmp_path / "run").rglob("*"):
        # the prefix itself is what the user asked to have in the metrics' names
        if path.is_file() and path.name != "metrics.csv":
            assert CANARY.encode() not in path.read_bytes(), path
    assert "***" in (tmp_path / "run/csv/hparams.yaml").read_text()


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("logger.comet.api_key=abc", "logger.comet.api_key=***"),
        ("+logger.x.token=abc", "+logger.x.token=***"),
        ("+note=postgresql://me:abc@db:5432/x", "+note=postgresql://me:***@db:5432/x"),
        ("data.tokenizer=bpe", "data.tokenizer=bpe"),
        ("logger.comet.api_key=", "logger.comet.api_key="),
        ("-m", "-m"),
    ],
)
def test_a_secret_on_the_command_line_is_not_recorded(
    word: str, shown: str, small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["src/train.py", word])
    assert RunRecord(small()).fields["command"] == ["train.py", shown]


def test_the_root_is_no_secret(small: ComposeSmall) -> None:
    assert "***" not in str(mask_config(small())["paths"])


def test_every_logger_is_told_the_same_plain_hyperparameters(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, dict[str, Any]] = {}
    for name in ("CSVLogger", "TensorBoardLogger"):
        monkeypatch.setattr(
            f"lightning.pytorch.loggers.{name}.log_hyperparams",
            lambda self, params, *_, **__: told.setdefault(type(self).__name__, params),
        )
    train(small("logger=[csv,tensorboard]", "test=false", "+tags.first=true"))
    assert told.keys() == {"CSVLogger", "TensorBoardLogger"}
    assert told["CSVLogger"] == told["TensorBoardLogger"]
    params = told["CSVLogger"]
    assert params["tags"] == ["dev", "first"]
    assert params["parameters"]["total"] == 67978
    assert params["data"]["num_classes"] == params["model"]["net"]["output_size"] == 10
    assert "${" not in json.dumps(params)  # json refuses anything that is not plain


@RunIf(package="tensorboard")
def test_tensorboard_holds_the_metrics_of_the_run(small: ComposeSmall, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    metrics = train(small("logger=tensorboard"))
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    [scalar] = events.Scalars("test/acc")
    assert scalar.value == pytest.approx(metrics["test/acc"])


@RunIf(package="mlflow")
def test_mlflow_holds_metrics_hyperparameters_and_tags(small: ComposeSmall, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    metrics = train(small("logger=mlflow", "+tags.ablation=true"))
    client = MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'train'")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/acc"] == pytest.approx(metrics["test/acc"])
    assert run.data.params["model/net/lin1_size"] == "64"
    assert (run.data.tags["dev"], run.data.tags["ablation"]) == ("true", "true")
    assert read_json(tmp_path / "run/run.json")["loggers"]["mlflow"] == run.info.run_id


@RunIf(package="wandb")
def test_wandb_offline_is_given_the_tags_and_ended(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    seen: list[tuple[str, ...]] = []
    finish = wandb.Run.finish

    def finish_and_look(run: Any, *args: Any, **kwargs: Any) -> None:
        seen.append(tuple(run.tags))
        finish(run, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "finish", finish_and_look)
    train(small("logger=wandb", "logger.wandb.offline=true", "+tags.ablation=true", "test=false"))
    assert seen
    assert set(seen[0]) == {"dev", "ablation"}
    assert wandb.run is None
    assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))


def test_the_csv_logger_holds_the_metrics_of_the_run(small: ComposeSmall, tmp_path: Path) -> None:
    metrics = train(small("logger=csv"))
    with (tmp_path / "run/csv/metrics.csv").open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["test/acc"]]
    assert float(rows[-1]["test/acc"]) == pytest.approx(metrics["test/acc"])


def test_an_evaluation_has_a_record_too(small: ComposeSmall, tmp_path: Path) -> None:
    train(small())
    weights = tmp_path / "run/checkpoints/last.ckpt"
    evaluate(small(f"ckpt_path={weights}", config_name="eval", folder=tmp_path / "eval"))
    assert read_json(tmp_path / "eval/run.json")["task_name"] == "eval"
    assert read_json(tmp_path / "eval/results.json")["weights"] == str(weights)


@RunIf(posix=True)
def test_a_row_without_room_on_the_disk_is_told_with_its_file_and_the_rows_before_stay(tmp_path: Path) -> None:
    metrics = MetricsCSVLogger(tmp_path)
    for step in range(20):
        metrics.log_metrics({"loss": 0.5}, step)
    before = (tmp_path / "metrics.csv").read_text()
    with largest_file(len(before)), pytest.raises(DiskFull, match="no space for the row of step 20") as caught:
        metrics.log_metrics({"loss": 0.5}, 20)
    assert str(caught.value).startswith(f"{tmp_path}/metrics.csv: ")
    assert "paths.log_dir=<folder on another disk>" in str(caught.value)
    assert (tmp_path / "metrics.csv").read_text() == before
