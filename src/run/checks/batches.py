"""The batch size held to the number of processes, before anything is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from src.run.checks.findings import Finding
from src.run.checks.view import UNKNOWN, View


def check_batch_size(view: View) -> Iterator[Finding]:
    """Yield a `data.batch_size` that does not divide over the processes that the trainer starts.

    Nothing is said where their number is not known yet (`devices: auto`), or where the strategy cuts one example's work
    over several of them; the data module finds that.

    Args:
        view: The config.
    """
    data, trainer = (view.written.get(part) for part in ("data", "trainer"))
    if not isinstance(data, dict) or not isinstance(trainer, dict):
        return
    size = view.resolved(data.get("batch_size"), "data.batch_size")
    asked = {
        name: view.resolved(trainer.get(name, 1), f"trainer.{name}") for name in ("devices", "num_nodes", "strategy")
    }
    devices, nodes = number_of(asked["devices"]), number_of(asked["num_nodes"])
    counted = isinstance(size, int) and not isinstance(size, bool) and size > 0
    if not counted or not devices or not nodes or _cuts_examples(asked["strategy"]):
        return
    processes = devices * nodes
    if size % processes:
        near = max(processes, size - size % processes)
        over = f"{processes} processes" + (f" ({nodes} nodes of {devices})" if nodes > 1 else "")
        rule = f"is for all processes together and does not divide over {over}; choose a multiple of {processes}"
        yield Finding("data.batch_size", f"{rule}, e.g. data.batch_size={near}", data["batch_size"])


def _cuts_examples(strategy: Any) -> bool:
    """Tell whether several processes may work on one example."""
    return isinstance(strategy, Mapping) and (
        strategy.get("tensor_parallel_size", 1) != 1 or strategy.get("device_mesh") is not None
    )


def number_of(asked: Any) -> int:
    """Return how many a value of `devices` or `num_nodes` asks for; 0 where that is not known yet."""
    if isinstance(asked, bool) or asked in (None, UNKNOWN):
        return 0
    if isinstance(asked, int):
        return max(asked, 0)
    if isinstance(asked, str):
        return int(asked) if asked.isdigit() else 0
    return len(asked) if isinstance(asked, list) else 0
