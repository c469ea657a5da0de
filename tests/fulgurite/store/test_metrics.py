"""Reloads are counted by source and result, and measured; Prometheus collects them."""

from __future__ import annotations

import time

import pytest

from fulgurite.core.errors import UserError
from fulgurite.store import Store
from tests.support.store_loader import FedLoader, wait_until

prometheus_client = pytest.importorskip("prometheus_client")


def test_reloads_of_all_groups_are_exported_from_the_start() -> None:
    one, two = FedLoader({"n": 1}, "one"), FedLoader({"n": 1}, "two")
    registry = prometheus_client.CollectorRegistry()

    def value(name: str, **labels: str) -> float | None:
        found: float | None = registry.get_sample_value(f"config_{name}", labels)
        return found

    with Store(one) as store:
        store.group("db").add(two, lambda _: time.sleep(0.02))
        store.metrics.register(registry)
        store.load()
        assert value("reloads_total", store="root", source="one", result="success") is None
        store.watch()
        for store_name, source in (("root", "one"), ("root/db", "two")):
            for result in ("success", "failure"):
                assert value("reloads_total", store=store_name, source=source, result=result) == 0
        two.feed({"n": 2})
        two_labels = {"store": "root/db", "source": "two"}
        wait_until(lambda: value("reloads_total", **two_labels, result="success") == 1)
        two.feed(UserError("two: is down. Start it."))
        wait_until(lambda: value("reloads_total", **two_labels, result="failure") == 1)
        assert value("reload_duration_seconds_count", **two_labels) == 2
        seconds = value("reload_duration_seconds_sum", **two_labels)
        assert seconds is not None
        assert seconds > 0.02  # with the hook
        assert value("reload_duration_seconds_bucket", **two_labels, le="0.01") == 1
        assert value("reload_duration_seconds_bucket", **two_labels, le="+Inf") == 2
    text = prometheus_client.generate_latest(registry).decode()
    assert "# TYPE config_reloads_total counter" in text
    assert "# TYPE config_reload_duration_seconds histogram" in text


def test_a_load_is_no_reload() -> None:
    fed = FedLoader({"n": 1})
    with Store(fed).load_watch() as store:
        store.load()
        store.set("n", 2)
        assert store.metrics.stats("root", "fed").counts == {"success": 0, "failure": 0}
