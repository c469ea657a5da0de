"""The metrics read by a real Prometheus and a real Pushgateway; rules and dashboard checked by promtool and by data."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from fulgurite.callbacks import PrometheusMetrics
from fulgurite.live import LiveControl
from tests.fulgurite.callbacks.test_prometheus import STEPS, train
from tests.support.cli import run_cli
from tests.support.http_server import closed_port
from tests.support.project import ROOT
from tests.support.servers.real import answers, program, running

FILES = ROOT / "docs" / "prometheus"
DASHBOARD = json.loads((FILES / "grafana_dashboard.json").read_text())
CONFIG = """global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: training
    static_configs: [{{targets: ["{target}"]}}]
"""


def expressions() -> list[str]:
    """Return the queries of the dashboard, for all runs."""
    return [target["expr"].replace("$run", ".*") for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_and_the_alerts_name_only_series_that_the_callback_exports() -> None:
    source = (ROOT / "fulgurite/callbacks/prometheus.py").read_text()
    exported = set(re.findall(r'"(training_\w+)"', source))
    suffix = re.compile(r"_(total|bucket|sum|count)$")
    text = " ".join([*expressions(), (FILES / "alerts.yaml").read_text()])
    used = {suffix.sub("", name) for name in re.findall(r"\btraining_\w+", text)}
    assert used <= exported
    assert exported <= used, "a series that neither the dashboard nor an alert shows"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.slow
def test_promtool_accepts_the_rules_their_tests_and_the_config() -> None:
    promtool = program("promtool")
    for words in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        subprocess.run([promtool, *words], cwd=FILES, check=True, capture_output=True)
    subprocess.run([promtool, "check", "config", "prometheus.yaml"], cwd=FILES, check=True, capture_output=True)


@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_training_and_answers_each_query_of_the_dashboard(tmp_path: Path) -> None:
    port, own = closed_port(), closed_port()
    url = f"http://127.0.0.1:{port}"
    config = tmp_path / "prometheus.yaml"
    config.write_text(CONFIG.format(rules=FILES / "alerts.yaml", target=f"127.0.0.1:{own}"))
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    metrics, live = PrometheusMetrics(port=own, labels={"task_name": "mine"}), LiveControl(tmp_path / "run")

    def query(expression: str) -> list[Any]:
        answer = json.loads(str(bytes_of(f"{url}/api/v1/query?query={urllib.parse.quote(expression)}"), "utf-8"))
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def ask() -> tuple[str, dict[str, list[Any]], list[Any]]:
        for observe in live.reload_observers:
            observe(live.sources[0], "success", 0.01)
        wanted = f"training_global_step == {2 * STEPS}"
        deadline = time.monotonic() + 60
        while not query(wanted) and time.monotonic() < deadline:
            threading.Event().wait(0.2)
        threading.Event().wait(3)  # rates need two scrapes
        served = bytes_of(metrics.url).decode()
        return served, {expression: query(expression) for expression in expressions()}, query("up")

    with running([*command, f"--web.listen-address=127.0.0.1:{port}"], tmp_path, lambda: answers(f"{url}/-/ready")):
        served, found, up = train(tmp_path, metrics, live, function=ask)
    lint = [program("promtool"), "check", "metrics"]
    done = subprocess.run(lint, input=served, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [result["value"][1] for result in up] == ["1"]
    assert [expression for expression, results in found.items() if not results] == []
    joined = next(results for expression, results in found.items() if "training_global_step" in expression)
    assert joined[0]["metric"]["task_name"] == "mine"
    assert float(joined[0]["value"][1]) == 2 * STEPS


@pytest.mark.slow
def test_a_real_pushgateway_has_the_metrics_of_a_run_until_its_end(tmp_path: Path) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    metrics = PrometheusMetrics(port=None, gateway=f"127.0.0.1:{port}", interval_seconds=0.1)

    def wait_for_push() -> str:
        deadline = time.monotonic() + 60
        while "training_global_step{" not in (text := bytes_of(f"{url}/metrics").decode()):
            assert time.monotonic() < deadline
            threading.Event().wait(0.1)
        return text

    command = [program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, tmp_path, lambda: answers(f"{url}/-/ready")):
        text = train(tmp_path, metrics, function=wait_for_push)
        after = bytes_of(f"{url}/metrics").decode()
    assert 'training_global_step{instance="run",job="training",rank="0"}' in text
    assert "training_global_step" not in after


def bytes_of(url: str) -> bytes:
    """Return what a server answers."""
    content = answers(url)
    assert isinstance(content, bytes)
    return content


@pytest.mark.slow
def test_the_jobs_of_a_sweep_serve_one_after_the_other_on_the_same_port(tmp_path: Path) -> None:
    port = closed_port()
    words = ("-m", "seed=1,2", "callbacks=[default,prometheus]", f"callbacks.prometheus.port={port}")
    few = tuple(f"+trainer.limit_{part}_batches=2" for part in ("train", "val", "test"))
    done = run_cli("train", *words, *few, "trainer.max_epochs=1", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    logs = [file.read_text() for file in tmp_path.rglob("train.log")]
    served = [line for text in logs for line in text.splitlines() if "metrics for Prometheus at" in line]
    assert len(served) == 2
    assert all(line.endswith(f"http://127.0.0.1:{port}/metrics") for line in served), served
