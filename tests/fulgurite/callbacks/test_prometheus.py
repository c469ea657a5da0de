"""The metrics for Prometheus: all series, a registry for each Trainer, busy ports, a gateway, a file, live edits."""

from __future__ import annotations

import http.server
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from prometheus_client.parser import text_string_to_metric_families as parse

from fulgurite.callbacks.prometheus import PrometheusMetrics, num_samples
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.context import ProcessContext, current_context, set_context
from fulgurite.core.errors import UserError
from fulgurite.live import LiveControl
from fulgurite.validation import targets
from tests.support.compose import compose_raw, findings
from tests.support.live import run as run_live
from tests.support.toy_task import BATCH, IMAGES, OrdinaryData, OrdinaryModel

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
STEPS = IMAGES // BATCH


def scrape(url: str) -> Samples:
    """Return name to labels to value."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


class Scraper(Callback):
    """Calls a function at the end of the training, while the metrics are served."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result: Any = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.result = self.function()


def train(tmp_path: Path, metrics: PrometheusMetrics, *callbacks: Callback, function: Any = None, **more: Any) -> Any:
    """Train for two epochs and return what a function, by default a scrape, returns at the end."""
    scraper = Scraper(function or (lambda: scrape(metrics.url)))
    saves = ModelCheckpoint(tmp_path, save_top_k=-1)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[metrics, *callbacks, saves, scraper],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    trainer.fit(OrdinaryModel(), datamodule=OrdinaryData())
    return scraper.result


def test_every_series_is_served_while_a_run_trains_and_nothing_after(tmp_path: Path) -> None:
    metrics = PrometheusMetrics(port=0, labels={"task_name": "mine"})
    found = train(tmp_path, metrics)
    [labels] = found["training_run_info"]
    assert dict(labels).keys() == {"task_name", "run_id", "config_hash", "rank"}
    assert found["training_global_step"] == {(): 2 * STEPS}
    assert found["training_epoch"][()] in {1, 2}
    [group] = found["training_learning_rate"]
    assert found["training_learning_rate"][group] > 0
    assert found["training_step_duration_seconds_count"] == {(): 2 * STEPS}
    buckets = found["training_step_duration_seconds_bucket"]
    assert buckets[(("le", "+Inf"),)] == 2 * STEPS
    assert found["training_step_duration_seconds_sum"][()] > 0
    assert found["training_samples_total"] == {(): 2 * IMAGES}
    assert found["training_data_wait_seconds_total"][()] > 0
    assert found["training_checkpoints_total"] == {(("result", "success"),): 2, (("result", "failure"),): 0}
    assert found["training_last_step_timestamp_seconds"][()] > 1e9
    assert any(name.startswith("val/") for ((_, name),) in found["training_metric"])
    assert metrics.url == ""
    assert metrics.registry is None
    assert "prometheus" not in {thread.name for thread in threading.enumerate()}


def test_a_second_trainer_and_a_busy_port_are_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = PrometheusMetrics(port=0)

    def train_another() -> tuple[Samples, Samples]:
        port = int(first.url.split(":")[2].split("/")[0])
        second = PrometheusMetrics(port=port)
        other = train(tmp_path / "other", second, limit_train_batches=3)
        return scrape(first.url), other

    of_first, of_second = train(tmp_path, first, function=train_another)
    assert of_first["training_global_step"] == {(): 2 * STEPS}
    assert of_second["training_global_step"] == {(): 6}
    assert "The metrics have another port." in caplog.text
    # the same callback and the same port again, as in the next job of a sweep
    again = train(tmp_path / "again", first, limit_train_batches=1)
    assert again["training_samples_total"][()] > 0


@pytest.mark.parametrize("address", ["no-such-host.invalid", "203.0.113.7", "a" * 100])
def test_an_address_of_no_machine_of_ours_is_one_line(address: str, tmp_path: Path) -> None:
    metrics = PrometheusMetrics(port=0, address=address)
    with pytest.raises(UserError) as caught:
        train(tmp_path, metrics)
    line = str(caught.value)
    assert line.startswith(f"PrometheusMetrics(address={address!r}): ")
    assert line.endswith(". Set one of this machine, e.g. 127.0.0.1.")
    assert "\n" not in line
    assert metrics.registry is None


@pytest.mark.parametrize("seconds", [0, -3, float("nan")])
def test_an_interval_without_a_pause_is_one_line(seconds: float) -> None:
    line = f"PrometheusMetrics(interval_seconds={seconds}): is not above 0. Set e.g. 15."
    with pytest.raises(UserError, match=re.escape(line)):
        PrometheusMetrics(interval_seconds=seconds)


@pytest.mark.parametrize("port", [65536, -1])
def test_a_port_that_cannot_be_is_one_line(port: int, tmp_path: Path) -> None:
    line = f"PrometheusMetrics(port={port}): is not from 0 to 65535. Set e.g. 9464."
    with pytest.raises(UserError, match=re.escape(line)):
        train(tmp_path, PrometheusMetrics(port=port))


def test_a_failed_checkpoint_is_counted(tmp_path: Path) -> None:
    metrics = PrometheusMetrics(port=0)

    def fail_to_save() -> Samples:
        trainer = metrics._trainer
        assert trainer is not None
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            trainer.save_checkpoint(tmp_path / "file" / "x.ckpt")
        return scrape(metrics.url)

    found = train(tmp_path, metrics, function=fail_to_save)
    assert found["training_checkpoints_total"][("result", "failure"),] == 1


def test_live_edits_are_counted_by_source_and_result_from_the_start(tmp_path: Path) -> None:
    metrics, live = PrometheusMetrics(port=0), LiveControl(tmp_path / "run")
    source = str(tmp_path / "run" / "live.yaml")
    assert live.sources == [source]

    def edit() -> tuple[Samples, Samples]:
        before = scrape(metrics.url)
        for observe in live.reload_observers:
            observe(source, "success", 0.02)
            observe(source, "failure", 0.0)
        return before, scrape(metrics.url)

    before, after = train(tmp_path, metrics, live, function=edit)
    success, failure = ((("result", result), ("source", source)) for result in ("success", "failure"))
    assert before["training_live_reloads_total"] == {success: 0, failure: 0}
    assert after["training_live_reloads_total"] == {success: 1, failure: 1}
    assert after["training_live_reload_duration_seconds_count"] == {(("source", source),): 2}
    assert live.reload_observers == []


@contextmanager
def gateway(status: int = 200) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Run an HTTP server that keeps what it is sent, as a Pushgateway does."""
    requests: list[tuple[str, str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append((self.command, self.path, content))
            self.send_response(status)
            self.end_headers()

        def do_DELETE(self) -> None:
            self.do_PUT()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_gateway_gets_the_metrics_which_are_deleted_at_the_end(tmp_path: Path) -> None:
    with gateway() as (address, requests):
        metrics = PrometheusMetrics(port=None, gateway=address, labels={"task_name": "mine"}, interval_seconds=0.01)
        train(tmp_path, metrics, function=lambda: metrics.url)
    methods = [method for method, _, _ in requests]
    assert methods[-1] == "DELETE"
    assert set(methods[:-1]) == {"PUT"}
    assert {path for _, path, _ in requests} == {"/metrics/job/mine/instance/run/rank/0"}
    assert b"training_global_step" in requests[0][2]


def test_a_gateway_that_fails_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gateway(500) as (address, _):
        metrics = PrometheusMetrics(port=None, gateway=address, interval_seconds=0.01)
        train(tmp_path, metrics, function=lambda: None)
    assert caplog.text.count("callbacks.prometheus.gateway") == 1


def test_a_file_for_node_exporter_is_written_and_removed_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    metrics = PrometheusMetrics(port=None, textfile=file, interval_seconds=0.01)

    def read() -> str:
        for _ in range(1000):
            if file.is_file() and f"training_global_step {2 * STEPS}.0" in (text := file.read_text()):
                return text
            threading.Event().wait(0.01)
        return ""

    text = train(tmp_path, metrics, function=read)
    assert f"training_samples_total {2 * IMAGES}.0" in text
    assert not file.exists()


def test_an_error_of_the_training_ends_the_server(tmp_path: Path) -> None:
    metrics = PrometheusMetrics(port=0)

    def fail() -> None:
        assert metrics.url
        raise RuntimeError("of the test")

    with pytest.raises(RuntimeError, match="of the test"):
        train(tmp_path, metrics, function=fail)
    assert metrics.url == ""


def test_the_run_is_named_by_its_record(tmp_path: Path) -> None:
    class Record:
        fields = {"config_hash": "abc"}
        folder = tmp_path / "2026-01-01_00-00-00"

    before = current_context()
    set_context(ProcessContext(record=Record()))
    try:
        metrics = PrometheusMetrics(port=0)
        found = train(tmp_path, metrics)
    finally:
        set_context(before)
    [labels] = found["training_run_info"]
    assert dict(labels) == {"config_hash": "abc", "rank": "0", "run_id": "2026-01-01_00-00-00"}


def test_the_config_names_the_callback() -> None:
    guard_configs()
    node = compose_raw("callbacks=[default,prometheus]").callbacks.prometheus
    assert node._target_ == "fulgurite.callbacks.prometheus.PrometheusMetrics"
    assert node.labels.task_name == "train"


def test_a_missing_library_names_its_extra_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "is_installed", lambda package: package != "prometheus_client")
    [line] = findings("callbacks=[default,prometheus]")
    assert line.endswith('which is not installed; pip install -e ".[prometheus]"')


def test_samples_are_the_length_of_the_first_tensor() -> None:
    import torch

    assert num_samples([torch.zeros(5, 2), torch.zeros(3)]) == 5
    assert num_samples({"text": ["a"], "ids": torch.zeros(4)}) == 4
    assert num_samples("text") == 0


def test_the_edits_of_a_live_run_are_counted_when_they_are_applied_and_refused(tmp_path: Path) -> None:
    metrics = PrometheusMetrics(port=0)
    scraper = Scraper(lambda: scrape(metrics.url))
    edits = {2: {"lr_scale": 0.5}, 4: {"lr_scale": 0.25}, 6: {"model.width": 3}}
    run_live(tmp_path, edits=edits, callbacks=[metrics, scraper])
    counts = scraper.result["training_live_reloads_total"]
    numbers = {"success": 0.0, "failure": 0.0}
    for labels, count in counts.items():
        numbers[dict(labels)["result"]] += count
    assert numbers == {"success": 2, "failure": 1}
