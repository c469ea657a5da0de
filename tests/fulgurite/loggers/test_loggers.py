"""Trackers that refuse, hang or vanish cost a run a bounded time and no value."""

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


def _tracker(folder: Path, port: int, seconds: float = 20.0) -> Logger:
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
    """Let little time pass between two tries."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 0.05)


def test_a_guarded_tracker_is_what_callbacks_look_for_and_gets_its_calls_in_order(tmp_path: Path) -> None:
    with PostServer() as server:
        tracker = _tracker(tmp_path, server.port)
        assert isinstance(tracker, AimLogger)
        assert type(tracker).__name__ == "AimLogger"
        assert tracker.experiment == tracker.version == "run-1"
        loss = torch.tensor(0.0)
        for step in range(20):
            loss.fill_(step)
            tracker.log_metrics({"loss": loss}, step=step)
        tracker.finalize("success")
        close_all([tracker])
    calls = [(body["call"], body.get("loss")) for body in server.bodies]
    # each number is the one of its step, though the tensor is another by the time it is sent
    assert calls == [("open", None), *(("metrics", float(step)) for step in range(20)), ("end", None)]
    assert not _undelivered(tmp_path)


def test_a_tracker_that_refuses_the_connection_is_told_once_and_keeps_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = _tracker(tmp_path, closed_port())
    start = time.monotonic()
    assert not isinstance(tracker.experiment, str)  # type: ignore[attr-defined]
    for step in range(3):
        tracker.log_metrics({"loss": step / 2}, step=step)
    tracker.finalize("success")
    close_all([tracker])
    assert time.monotonic() - start < SLACK
    assert _undelivered(tmp_path) == [
        {"call": "log_metrics", "step": step, "metrics": {"loss": step / 2}} for step in range(3)
    ]
    (line,) = _warnings(caplog)
    assert "Connection refused" in line
    assert str(tmp_path / "undelivered-posting.jsonl") in line


def test_a_tracker_that_never_answers_costs_no_more_than_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with silent_port() as port:
        tracker = _tracker(tmp_path, port, seconds=0.5)
        start = time.monotonic()
        assert not isinstance(tracker.experiment, str)  # type: ignore[attr-defined]

        def log_steps() -> None:
            for step in range(100):
                tracker.log_metrics({"loss": 1.0}, step=step)

        assert count_calls(log_steps) < 100 * 100
        tracker.finalize("success")
        close_all([tracker])
        assert 0.5 <= time.monotonic() - start < 0.5 + SLACK
    assert [call["step"] for call in _undelivered(tmp_path)] == list(range(100))
    assert len(_warnings(caplog)) == 1


@pytest.mark.usefixtures("quick")
def test_a_tracker_that_comes_back_gets_what_it_missed_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PostServer() as before:
        tracker = _tracker(tmp_path, before.port)
        tracker.log_metrics({"loss": 0.0}, step=0)
        tracker.finalize("success")  # waits until it was sent
    for step in range(1, 4):
        tracker.log_metrics({"loss": 0.0}, step=step)
    while not _warnings(caplog):
        time.sleep(0.01)
    with PostServer(before.port) as after:
        close_all([tracker])
    assert [body["step"] for body in before.bodies if "step" in body] == [0]
    assert [body["step"] for body in after.bodies] == [1, 2, 3]
    assert not _undelivered(tmp_path)
    assert len(_warnings(caplog)) == 1


@pytest.mark.usefixtures("quick")
def test_one_call_that_is_refused_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with PostServer(refuse="nonsense") as server:
        tracker = _tracker(tmp_path, server.port)
        for step, name in enumerate(["loss", "nonsense", "loss"]):
            tracker.log_metrics({name: 1.0}, step=step)
        close_all([tracker])
    assert [body["step"] for body in server.bodies if "step" in body] == [0, 2]
    assert _undelivered(tmp_path) == [{"call": "log_metrics", "step": 1, "metrics": {"nonsense": 1.0}}]


@pytest.mark.usefixtures("quick")
def test_a_tracker_that_will_not_open_a_run_is_sent_nothing(tmp_path: Path) -> None:
    with PostServer(refuse="open") as server:
        tracker = _tracker(tmp_path, server.port)
        tracker.log_metrics({"loss": 1.0}, step=0)
        close_all([tracker])
        tracker.log_metrics({"loss": 1.0}, step=1)
    assert server.bodies == []
    assert [call["step"] for call in _undelivered(tmp_path)] == [0, 1]


def test_a_slow_tracker_is_waited_for_as_long_as_it_answers(tmp_path: Path) -> None:
    with PostServer(delay=0.05) as server:
        tracker = _tracker(tmp_path, server.port, seconds=0.4)
        for step in range(12):  # 0.65 s in all
            tracker.log_metrics({"loss": 1.0}, step=step)
        close_all([tracker])
    assert len(server.bodies) == 13
    assert not _undelivered(tmp_path)


def test_more_calls_than_may_wait_go_to_the_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_PENDING", 5)
    with silent_port() as port:
        tracker = _tracker(tmp_path, port, seconds=0.1)
        for step in range(8):
            tracker.log_metrics({"loss": 1.0}, step=step)
        # the last five wait
        assert [call["step"] for call in _undelivered(tmp_path)] == [0, 1, 2]
        close_all([tracker])
    assert [call["step"] for call in _undelivered(tmp_path)] == list(range(8))


def test_a_guarded_tracker_can_be_sent_to_another_process(tmp_path: Path) -> None:
    with PostServer() as server:
        tracker = _tracker(tmp_path, server.port)
        tracker.log_metrics({"loss": 1.0}, step=0)
        tracker.finalize("success")
        again = pickle.loads(pickle.dumps(tracker))  # noqa: S301 - our own bytes
        again.log_metrics({"loss": 2.0}, step=1)
        close_all([tracker, again])
    assert type(again) is type(tracker)
    assert [body["loss"] for body in server.bodies if "loss" in body] == [1.0, 2.0]


def test_a_tracker_killed_in_mid_run_changes_nothing_of_the_run(
    small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = train(small("seed=0", "trainer.max_epochs=3", folder=tmp_path / "alone"))
    caplog.clear()
    with PostServer() as server:
        monkeypatch.setattr(KillServer, "server", server, raising=False)
        words = [
            f"+logger.posting={{_target_: tests.support.fake_loggers.AimLogger, port: {server.port}}}",
            "+callbacks.kill={_target_: tests.support.fake_loggers.KillServer, step: 6}",
        ]
        start = time.monotonic()
        metrics = train(small("seed=0", "trainer.max_epochs=3", "resilience.logger_timeout_seconds=10", TESTS, *words))
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


@pytest.mark.parametrize("answers", [True, False], ids=["refused", "silent"])
def test_a_tracker_that_cannot_be_made_is_left_out(
    answers: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with silent_port() as silent:
        port = closed_port() if answers else silent
        start = time.monotonic()
        node = {"_target_": "tests.support.fake_loggers.CometLogger"}
        made = build_guarded("comet", node, lambda: CometLogger(port), tmp_path, WaitBudget(0.4))
        assert made is None
        assert time.monotonic() - start < 0.4 + SLACK
    (line,) = _warnings(caplog, "comet")
    assert line.endswith(". Training continues without this logger.")
    assert ("Connection refused" in line) is answers


def test_a_tracker_that_cannot_write_its_files_does_not_stop_the_run(
    small: ComposeSmall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    places = [f"logger.{name}.save_dir={tmp_path}/file/x" for name in ("csv", "tensorboard")]
    metrics = train(small("logger=[csv,tensorboard]", *places))
    assert metrics["test/acc"] > 0
    for name in ("csv", "tensorboard"):
        (line,) = _warnings(caplog, name)
        assert line.endswith(". Training continues, and metrics.csv has the metrics.")
    assert read_json(tmp_path / "run/run.json")["status"] == "done"


def test_a_mistake_in_a_logger_that_writes_files_keeps_its_traceback(tmp_path: Path) -> None:
    class Mistaken(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            raise ZeroDivisionError

    tracker = guard(Mistaken(tmp_path), "mistaken", tmp_path, WaitBudget(1.0))
    with pytest.raises(ZeroDivisionError):
        tracker.log_metrics({"loss": 1.0}, step=0)


def test_waits_of_all_trackers_together_stay_within_the_time() -> None:
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
@pytest.mark.parametrize("answers", [True, False], ids=["refused", "silent"])
def test_a_run_ends_well_beside_a_real_client_that_finds_no_server(answers: bool, tmp_path: Path) -> None:
    with silent_port() as silent:
        port = closed_port() if answers else silent
        words = [
            "logger=mlflow",
            f"logger.mlflow.tracking_uri=http://127.0.0.1:{port}",
            "resilience.logger_timeout_seconds=4",
        ]
        done = WarmProcess("train", [*SMALL, *words, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said").wait()
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "logs")
    told = [
        line for line in (run / "train.log").read_text().splitlines() if "[WARNING] mlflow" in line or "Retry" in line
    ]
    assert len(told) == 1
    assert ("Connection refused" in told[0]) is answers
    calls = _undelivered(run, "mlflow")
    assert [call["call"] for call in calls[:2]] == ["log_hyperparams", "tags"]
    assert {name for call in calls[2:] for name in call["metrics"]} >= {"train/loss", "val/acc", "test/acc"}
    assert read_json(run / "run.json")["exit_code"] == 0


def test_an_error_that_is_raised_again_from_its_wrapper_is_told_and_not_followed_for_ever(tmp_path: Path) -> None:
    def make() -> Logger:
        cause = KeyError("before")
        try:
            raise RuntimeError("Error in call to target") from cause
        except RuntimeError as error:
            raise cause from error  # as build does with what Hydra has wrapped

    node = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
    with pytest.raises(KeyError, match="before"):
        build_guarded("csv", node, make, tmp_path, WaitBudget(1))
