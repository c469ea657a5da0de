"""A failing logger costs a run a bounded time and no value."""

from __future__ import annotations

import csv
import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from fulgurite.loggers import delivery
from fulgurite.loggers.delivery import DeliveryQueue, WaitBudget
from fulgurite.loggers.guarded import build_guarded, close_all, guard
from src.train import train
from tests.conftest import SMALL, ComposeSmall
from tests.support.cli import WarmProcess, only_run, read_json
from tests.support.cost import count_calls
from tests.support.fake_loggers import AimLogger, CometLogger, KillServer
from tests.support.http_server import PostServer, closed_port, silent_port
from tests.support.run_if import RunIf

SLACK = 5.0  # seconds: a time-out against hanging, with room for a loaded machine
TESTS = "extras.allowed_targets=[tests]"


def _guarded_logger(folder: Path, port: int, seconds: float = 20.0) -> Logger:
    return guard(AimLogger(port), "posting", folder, WaitBudget(seconds))


def _undelivered(folder: Path, name: str = "posting") -> list[dict[str, Any]]:
    file = folder / f"undelivered-{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _warnings(caplog: pytest.LogCaptureFixture, name: str = "posting") -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and record.getMessage().startswith(f"{name}: ")
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between two tries."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 0.05)


def test_a_guarded_logger_keeps_its_class_and_gets_its_calls_in_order(tmp_path: Path) -> None:
    with PostServer() as server:
        logger = _guarded_logger(tmp_path, server.port)
        assert isinstance(logger, AimLogger)
        assert type(logger).__name__ == "AimLogger"
        assert logger.experiment == logger.version == "run-1"
        loss = torch.tensor(0.0)
        for step in range(20):
            loss.fill_(step)
            logger.log_metrics({"loss": loss}, step=step)
        logger.finalize("success")
        close_all([logger])
    calls = [(body["call"], body.get("loss")) for body in server.bodies]
    # each value is that of its step, although the tensor changes before it is sent
    assert calls == [("open", None), *(("metrics", float(step)) for step in range(20)), ("end", None)]
    assert not _undelivered(tmp_path)


def test_a_logger_that_rejects_the_connection_is_reported_once_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = _guarded_logger(tmp_path, closed_port())
    start = time.monotonic()
    assert not isinstance(logger.experiment, str)  # type: ignore[attr-defined]
    for step in range(3):
        logger.log_metrics({"loss": step / 2}, step=step)
    logger.finalize("success")
    close_all([logger])
    assert time.monotonic() - start < SLACK
    assert _undelivered(tmp_path) == [
        {"call": "log_metrics", "step": step, "metrics": {"loss": step / 2}} for step in range(3)
    ]
    (line,) = _warnings(caplog)
    assert "Connection refused" in line
    assert str(tmp_path / "undelivered-posting.jsonl") in line


def test_a_logger_that_never_responds_costs_no_more_than_the_budget(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with silent_port() as port:
        logger = _guarded_logger(tmp_path, port, seconds=0.5)
        start = time.monotonic()
        assert not isinstance(logger.experiment, str)  # type: ignore[attr-defined]

        def log_steps() -> None:
            for step in range(100):
                logger.log_metrics({"loss": 1.0}, step=step)

        assert count_calls(log_steps) < 100 * 100
        logger.finalize("success")
        close_all([logger])
        assert 0.5 <= time.monotonic() - start < 0.5 + SLACK
    assert [call["step"] for call in _undelivered(tmp_path)] == list(range(100))
    assert len(_warnings(caplog)) == 1


@pytest.mark.usefixtures("quick")
def test_a_logger_that_comes_back_gets_the_missed_calls_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PostServer() as before:
        logger = _guarded_logger(tmp_path, before.port)
        logger.log_metrics({"loss": 0.0}, step=0)
        logger.finalize("success")  # flushes
    for step in range(1, 4):
        logger.log_metrics({"loss": 0.0}, step=step)
    while not _warnings(caplog):
        time.sleep(0.01)
    with PostServer(before.port) as after:
        close_all([logger])
    assert [body["step"] for body in before.bodies if "step" in body] == [0]
    assert [body["step"] for body in after.bodies] == [1, 2, 3]
    assert not _undelivered(tmp_path)
    assert len(_warnings(caplog)) == 1


@pytest.mark.usefixtures("quick")
def test_a_rejected_call_does_not_block_the_others(tmp_path: Path) -> None:
    with PostServer(refuse="nonsense") as server:
        logger = _guarded_logger(tmp_path, server.port)
        for step, name in enumerate(["loss", "nonsense", "loss"]):
            logger.log_metrics({name: 1.0}, step=step)
        close_all([logger])
    assert [body["step"] for body in server.bodies if "step" in body] == [0, 2]
    assert _undelivered(tmp_path) == [{"call": "log_metrics", "step": 1, "metrics": {"nonsense": 1.0}}]


@pytest.mark.usefixtures("quick")
def test_a_logger_that_cannot_connect_gets_no_call(tmp_path: Path) -> None:
    with PostServer(refuse="open") as server:
        logger = _guarded_logger(tmp_path, server.port)
        logger.log_metrics({"loss": 1.0}, step=0)
        close_all([logger])
        logger.log_metrics({"loss": 1.0}, step=1)
    assert server.bodies == []
    assert [call["step"] for call in _undelivered(tmp_path)] == [0, 1]


def test_a_run_waits_for_a_slow_logger_as_long_as_it_responds(tmp_path: Path) -> None:
    with PostServer(delay=0.05) as server:
        logger = _guarded_logger(tmp_path, server.port, seconds=0.4)
        for step in range(12):  # 0.65 s in all
            logger.log_metrics({"loss": 1.0}, step=step)
        close_all([logger])
    assert len(server.bodies) == 13
    assert not _undelivered(tmp_path)


def test_calls_beyond_the_queue_go_to_the_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_PENDING", 5)
    with silent_port() as port:
        logger = _guarded_logger(tmp_path, port, seconds=0.1)
        for step in range(8):
            logger.log_metrics({"loss": 1.0}, step=step)
        # the last five wait
        assert [call["step"] for call in _undelivered(tmp_path)] == [0, 1, 2]
        close_all([logger])
    assert [call["step"] for call in _undelivered(tmp_path)] == list(range(8))


def test_a_guarded_logger_can_be_pickled(tmp_path: Path) -> None:
    with PostServer() as server:
        logger = _guarded_logger(tmp_path, server.port)
        logger.log_metrics({"loss": 1.0}, step=0)
        logger.finalize("success")
        again = pickle.loads(pickle.dumps(logger))  # noqa: S301 - our own bytes
        again.log_metrics({"loss": 2.0}, step=1)
        close_all([logger, again])
    assert type(again) is type(logger)
    assert [body["loss"] for body in server.bodies if "loss" in body] == [1.0, 2.0]


def test_a_service_killed_during_a_run_does_not_change_the_run(
    small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = train(small("seed=0", "trainer.max_epochs=3", folder=tmp_path / "alone"))
    caplog.clear()
    with PostServer() as server:
        monkeypatch.setattr(KillServer, "server", server, raising=False)
        overrides = [
            f"+logger.posting={{_target_: tests.support.fake_loggers.AimLogger, port: {server.port}}}",
            "+callbacks.kill={_target_: tests.support.fake_loggers.KillServer, step: 6}",
        ]
        start = time.monotonic()
        metrics = train(
            small("seed=0", "trainer.max_epochs=3", "resilience.logger_timeout_seconds=10", TESTS, *overrides)
        )
    assert metrics == alone
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"], record["loggers"]) == ("done", 0, {"posting": "run-1"})
    rows = (tmp_path / "run/metrics.csv").read_text()
    assert rows == (tmp_path / "alone/metrics.csv").read_text()
    assert time.monotonic() - start < 10 + SLACK
    sent = [(body["step"], body["val/acc"]) for body in server.bodies if "val/acc" in body]
    kept = [call for call in _undelivered(tmp_path / "run") if call["call"] == "log_metrics"]
    missed = [(call["step"], call["metrics"]["val/acc"]) for call in kept if "val/acc" in call["metrics"]]
    logged = [(int(row["step"]), float(row["val/acc"])) for row in csv.DictReader(rows.splitlines()) if row["val/acc"]]
    assert sent + missed == logged
    assert len(missed) == 2
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize("responds", [True, False], ids=["rejected", "unresponsive"])
def test_a_logger_that_cannot_be_built_is_left_out(
    responds: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with silent_port() as silent:
        port = closed_port() if responds else silent
        start = time.monotonic()
        node = {"_target_": "tests.support.fake_loggers.CometLogger"}
        made = build_guarded("comet", node, lambda: CometLogger(port), tmp_path, WaitBudget(0.4))
        assert made is None
        assert time.monotonic() - start < 0.4 + SLACK
    (line,) = _warnings(caplog, "comet")
    assert line.endswith(". Training continues without this logger.")
    assert ("Connection refused" in line) is responds


def test_a_logger_that_cannot_write_its_files_does_not_stop_the_run(
    small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folders = [f"logger.{name}.save_dir={tmp_path}/file/x" for name in ("csv", "tensorboard")]
    metrics = train(small("logger=[csv,tensorboard]", *folders))
    assert metrics["test/acc"] > 0
    for name in ("csv", "tensorboard"):
        (line,) = _warnings(caplog, name)
        assert line.endswith(". Training continues, and metrics.csv has the metrics.")
    assert read_json(tmp_path / "run/run.json")["status"] == "done"


def test_a_bug_in_a_file_logger_keeps_its_traceback(tmp_path: Path) -> None:
    class Mistaken(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            raise ZeroDivisionError

    logger = guard(Mistaken(tmp_path), "mistaken", tmp_path, WaitBudget(1.0))
    with pytest.raises(ZeroDivisionError):
        logger.log_metrics({"loss": 1.0}, step=0)


def test_all_loggers_together_stay_within_the_budget() -> None:
    budget = WaitBudget(0.3)
    queue = DeliveryQueue("x", Path(), budget)
    start = time.monotonic()
    with queue.changed:
        for fraction in (0.5, 0.5, 1.0, 1.0):
            assert not budget.wait(queue.changed, lambda: False, fraction)
    assert 0.3 <= time.monotonic() - start < 0.3 + SLACK
    assert budget.silent_seconds == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
@RunIf(package="mlflow")
@pytest.mark.parametrize("responds", [True, False], ids=["rejected", "unresponsive"])
def test_a_run_succeeds_with_a_real_client_and_no_server(responds: bool, tmp_path: Path) -> None:
    with silent_port() as silent:
        port = closed_port() if responds else silent
        overrides = [
            "logger=mlflow",
            f"logger.mlflow.tracking_uri=http://127.0.0.1:{port}",
            "resilience.logger_timeout_seconds=4",
        ]
        done = WarmProcess("train", [*SMALL, *overrides, f"paths.log_dir={tmp_path}/logs"], tmp_path / "output").wait()
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "logs")
    reported = [
        line for line in (run / "train.log").read_text().splitlines() if "[WARNING] mlflow" in line or "Retry" in line
    ]
    assert len(reported) == 1
    assert ("Connection refused" in reported[0]) is responds
    calls = _undelivered(run, "mlflow")
    assert [call["call"] for call in calls[:2]] == ["log_hyperparams", "tags"]
    assert {name for call in calls[2:] for name in call["metrics"]} >= {"train/loss", "val/acc", "test/acc"}
    assert read_json(run / "run.json")["exit_code"] == 0


def test_a_circle_of_error_causes_is_followed_once(tmp_path: Path) -> None:
    def make() -> Logger:
        cause = KeyError("before")
        try:
            raise RuntimeError("Error in call to target") from cause
        except RuntimeError as error:
            raise cause from error  # as build does with what Hydra has wrapped

    node = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
    with pytest.raises(KeyError, match="before"):
        build_guarded("csv", node, make, tmp_path, WaitBudget(1))
