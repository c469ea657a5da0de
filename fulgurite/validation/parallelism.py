"""Check batch size, sharding sizes and fused optimizers against devices and nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fulgurite.config.view import UNKNOWN, ConfigView
from fulgurite.validation.findings import Finding

CUTS = "ModelParallelStrategy"  # several processes may share a batch of its trainers
NOT_FUSED = ("SGD", "Adagrad")  # of torch.optim: can be fused, but not over parameters that are cut


@dataclass(frozen=True)
class Processes:
    """The processes of a trainer.

    Attributes:
        devices: On each machine.
        nodes: Machines.
        data_parallel: Groups of processes with batches of their own; 0 where that is not known yet.
        tensor_parallel: Processes that share their batches; 0 where that is not known yet.
    """

    devices: int
    nodes: int
    data_parallel: int
    tensor_parallel: int

    @property
    def number(self) -> int:
        """How many, over all machines."""
        return self.devices * self.nodes

    def __str__(self) -> str:
        return f"{self.number} processes" + (f" ({self.nodes} nodes of {self.devices})" if self.nodes > 1 else "")


def check_batch_size(view: ConfigView) -> Iterator[Finding]:
    """Yield a `data.batch_size` that does not divide over the processes that have batches of their own.

    With `devices: auto` the data module checks it.

    Args:
        view: The config.
    """
    data, processes = view.written.get("data"), _processes(view)
    if not isinstance(data, dict) or processes is None or not processes.data_parallel:
        return
    size, shares = view.resolve(data.get("batch_size"), "data.batch_size"), processes.data_parallel
    if isinstance(size, int) and not isinstance(size, bool) and size > 0 and size % shares:
        near = max(shares, size - size % shares)
        over = (
            str(processes) if shares == processes.number else f"{shares} groups of processes that share their batches"
        )
        rule = f"is for all processes together and does not divide over {over}. Choose a multiple of {shares}"
        yield Finding("data.batch_size", f"{rule}, e.g. data.batch_size={near}", data["batch_size"])


def check_cut(view: ConfigView) -> Iterator[Finding]:
    """Yield sizes of a strategy that cuts the model, where their product is not the number of processes.

    Args:
        view: The config.
    """
    processes = _processes(view)
    if processes is None or not processes.data_parallel or not processes.tensor_parallel:
        return
    data, tensor = processes.data_parallel, processes.tensor_parallel
    if data * tensor != processes.number:
        rest = processes.number // tensor if processes.number % tensor == 0 else 0
        remedy = f"trainer.strategy.data_parallel_size={rest}" if rest else "sizes whose product is that number"
        rule = f"times tensor_parallel_size={tensor} is {data * tensor}, and the trainer has {processes}. Use {remedy}"
        yield Finding("trainer.strategy.data_parallel_size", rule, data)


def check_fused(view: ConfigView) -> Iterator[Finding]:
    """Yield a fused optimizer that torch does not have for a model that is cut over devices.

    Args:
        view: The config.
    """
    trainer, model = (view.written.get(part) for part in ("trainer", "model"))
    if not isinstance(trainer, dict) or not isinstance(model, dict) or not isinstance(model.get("optimizer"), dict):
        return
    strategy, optimizer = trainer.get("strategy"), view.resolve(model["optimizer"], "model.optimizer")
    target = str(optimizer.get("_target_"))
    refused = target.startswith("torch.optim.") and target.endswith(tuple(f".{name}" for name in NOT_FUSED))
    if _cuts(strategy) and refused and optimizer.get("fused") is True:
        rule = f"torch has no fused {target} for a model that is cut over devices. Use model.optimizer.fused=false"
        yield Finding("model.optimizer.fused", rule, True)


def _cuts(strategy: Any) -> bool:
    """Tell whether a strategy cuts the model over devices."""
    return isinstance(strategy, Mapping) and str(strategy.get("_target_")).endswith(f".{CUTS}")


def _processes(view: ConfigView) -> Processes | None:
    """Return the processes that a trainer asks for; None where that is not known yet."""
    trainer = view.written.get("trainer")
    if not isinstance(trainer, dict):
        return None
    names = ("devices", "num_nodes", "strategy")
    asked = {name: view.resolve(trainer.get(name, 1), f"trainer.{name}") for name in names}
    devices, nodes, strategy = number_of(asked["devices"]), number_of(asked["num_nodes"]), asked["strategy"]
    if not devices or not nodes:
        return None
    if not isinstance(strategy, Mapping):
        return Processes(devices, nodes, devices * nodes, 1)
    if not _cuts(strategy):
        # the mesh of another strategy may have processes that share batches
        return Processes(devices, nodes, 0 if strategy.get("device_mesh") is not None else devices * nodes, 1)
    groups = (("data_parallel_size", nodes), ("tensor_parallel_size", devices))  # what Lightning takes for auto
    sizes = [auto if strategy.get(name, "auto") == "auto" else number_of(strategy[name]) for name, auto in groups]
    return Processes(devices, nodes, *sizes)


def number_of(asked: Any) -> int:
    """Return how many a value of `devices` or `num_nodes` asks for; 0 where that is not known yet."""
    if isinstance(asked, bool) or asked in (None, UNKNOWN):
        return 0
    if isinstance(asked, int):
        return max(asked, 0)
    if isinstance(asked, str):
        return int(asked) if asked.isdigit() else 0
    return len(asked) if isinstance(asked, list) else 0
