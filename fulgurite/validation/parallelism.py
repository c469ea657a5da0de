"""Check batch size, sharding sizes and fused optimizers against devices and nodes, and the process group."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from fulgurite.config.view import UNKNOWN, ConfigView
from fulgurite.core.errors import suggest_or_list
from fulgurite.core.formatting import parse_count
from fulgurite.core.project import project_root
from fulgurite.distributed.comm_env import COMM_PREFIXES, ENV_INIT_METHOD
from fulgurite.distributed.network_interfaces import find_interface_problem
from fulgurite.validation.findings import Finding
from fulgurite.validation.signatures.resolve import ancestry, locate

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
NOT_FUSED = (".SGD", ".Adagrad")  # of torch.optim: fused, but not for DTensor parameters


@dataclass(frozen=True)
class Processes:
    """The processes of a trainer."""

    devices: int  # of each node
    nodes: int
    data_parallel: int  # groups of processes, each with its own batches; 0 if unknown
    tensor_parallel: int  # processes of a group, which share their batches; 0 if unknown

    @property
    def number(self) -> int:
        """The number of processes of all nodes."""
        return self.devices * self.nodes

    def __str__(self) -> str:
        return f"{self.number} processes" + (f" ({self.nodes} nodes of {self.devices})" if self.nodes > 1 else "")


def check_accelerator(view: ConfigView) -> Iterator[Finding]:
    """Yield the name of an accelerator that Lightning lacks; installed packages and the project may register others."""
    trainer = view.written.get("trainer")
    if not isinstance(trainer, dict) or trainer.get("_target_") != "lightning.pytorch.Trainer":
        return
    name = view.resolve(trainer.get("accelerator"), "trainer.accelerator")
    if not isinstance(name, str) or name in ACCELERATORS or re.fullmatch("[a-z]pu", name):
        return
    sources = (file.read_text(encoding="utf-8", errors="replace") for file in (project_root() / "src").rglob("*.py"))
    if not any("accelerators" in text for text in sources):
        near = suggest_or_list(name, ACCELERATORS, "There is")
        yield Finding("trainer.accelerator", f"there is no such accelerator{near}", trainer["accelerator"])


def check_batch_size(view: ConfigView) -> Iterator[Finding]:
    """Yield a `data.batch_size` that does not divide over the data-parallel groups.

    Only a data module that calls `fulgurite.data.device_batch_size` has a global batch size. With `devices: auto`,
    that function checks it.
    """
    data, processes = view.written.get("data"), _processes(view)
    if not isinstance(data, dict) or processes is None or not processes.data_parallel:
        return
    if not source_mentions(str(data.get("_target_")), "device_batch_size"):
        return
    size, shards = view.resolve(data.get("batch_size"), "data.batch_size"), processes.data_parallel
    if isinstance(size, int) and not isinstance(size, bool) and size > 0 and size % shards:
        near = max(shards, size - size % shards)
        groups = f"{shards} groups of processes that share their batches"
        over = str(processes) if shards == processes.number else groups
        rule = f"is for all processes together and does not divide over {over}. Choose a multiple of {shards}"
        yield Finding("data.batch_size", f"{rule}, e.g. data.batch_size={near}", data["batch_size"])


def check_mesh_sizes(view: ConfigView) -> Iterator[Finding]:
    """Yield sizes of ModelParallelStrategy whose product is not the number of processes."""
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
    """Yield a fused optimizer that torch does not have for a sharded model."""
    trainer, model = (view.written.get(part) for part in ("trainer", "model"))
    if not isinstance(trainer, dict) or not isinstance(model, dict) or not isinstance(model.get("optimizer"), dict):
        return
    strategy, optimizer = trainer.get("strategy"), view.resolve(model["optimizer"], "model.optimizer")
    target = str(optimizer.get("_target_"))
    refused = target.startswith("torch.optim.") and target.endswith(NOT_FUSED)
    if _shards_model(strategy) and refused and optimizer.get("fused") is True:
        rule = f"torch has no fused {target} for a model that is sharded over devices. Use model.optimizer.fused=false"
        yield Finding("model.optimizer.fused", rule, True)


def check_processes(view: ConfigView) -> Iterator[Finding]:
    """Yield wrong values of `init_method`, `interfaces` and `comm_env`."""
    distributed = view.written.get("distributed")
    if not isinstance(distributed, dict):
        return
    url = view.resolve(distributed.get("init_method"), "distributed.init_method")
    if isinstance(url, str) and (rule := _wrong_url(url)):
        yield Finding("distributed.init_method", rule, distributed["init_method"])
    names = view.resolve(distributed.get("interfaces"), "distributed.interfaces")
    for name in names if isinstance(names, list) else ():
        if name is not UNKNOWN and (rule := find_interface_problem(str(name))):
            yield Finding("distributed.interfaces", rule, distributed["interfaces"])
    for name, value in (distributed.get("comm_env") or {}).items():
        key = f"distributed.comm_env.{name}"
        if not str(name).startswith(COMM_PREFIXES):
            rule = f"is not a variable of a communication library ({', '.join(COMM_PREFIXES)})"
            yield Finding(key, f"{rule}. Set it in the shell or in .env", value)
        elif isinstance(value, (dict, list)):
            yield Finding(key, "must be text or a number", value)


def _wrong_url(url: str) -> str:
    """Return what is wrong with an init_method; empty when it is valid."""
    forms = "env://, tcp://<host of rank 0>:<port> or file:///<path on a shared filesystem>"
    try:
        parsed = urlparse(url)
        port = parsed.port
    except ValueError:
        return f"has no port from 1 to 65535. Set {forms}"
    if parsed.scheme == "tcp" and not (parsed.hostname and port):
        return "lacks a host or a port from 1 to 65535. Set tcp://<host of rank 0>:<port>"
    if parsed.scheme == "file" and (parsed.netloc or not parsed.path.strip("/")):
        return "has no absolute path. Set file:///<path on a shared filesystem>"
    if parsed.scheme == "file" and Path(parsed.path).is_dir():
        return "is a folder. Name a file in it"
    if parsed.scheme not in {"env", "tcp", "file"} or (parsed.scheme == "env" and url != ENV_INIT_METHOD):
        return f"is not a valid rendezvous URL. Set {forms}"
    return ""


def _shards_model(strategy: Any) -> bool:
    return isinstance(strategy, Mapping) and str(strategy.get("_target_")).endswith(".ModelParallelStrategy")


def _processes(view: ConfigView) -> Processes | None:
    """Return the processes of a trainer; None if unknown."""
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
    if not _shards_model(strategy):
        # processes may share batches in the mesh of another strategy
        return Processes(devices, nodes, 0 if strategy.get("device_mesh") is not None else devices * nodes, 1)
    groups = (("data_parallel_size", nodes), ("tensor_parallel_size", devices))  # Lightning's values for auto
    sizes = [auto if strategy.get(name, "auto") == "auto" else number_of(strategy[name]) for name, auto in groups]
    return Processes(devices, nodes, *sizes)


def number_of(asked: Any) -> int:
    """Return the number that a value of `devices` or `num_nodes` requests; 0 if unknown."""
    if isinstance(asked, int):
        return 0 if isinstance(asked, bool) else max(asked, 0)
    if isinstance(asked, str):
        return parse_count(asked) or 0
    return len(asked) if isinstance(asked, list) else 0


def source_mentions(target: str, name: str) -> bool:
    """Return whether the source of a class or of a base of it mentions a name, e.g. a function that it calls."""
    found = locate(target)
    if not isinstance(found, tuple):
        return False
    return any(part is not None and name in part.module.text for part in ancestry(found[0]))
