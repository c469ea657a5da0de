"""Initialize the process group: init method, stores, backend.

Lightning supports `env://` only, and leaves its keys in torchrun's store, where the next job of a sweep reads them.
Lightning uses a process group that is already initialized.
"""

from __future__ import annotations

import atexit
import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # not exported

from fulgurite.compat.lightning_strategies import has_process_group, process_group_backend, start_method
from fulgurite.config.schema import Distributed, read_settings
from fulgurite.core.context import current_context
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.distributed.backend import choose_backend
from fulgurite.distributed.cluster_environment import ExternalLaunchEnvironment
from fulgurite.distributed.comm_env import ENV_INIT_METHOD, set_comm_variables
from fulgurite.distributed.launch_env import RANK_ZERO_PID, current_launch
from fulgurite.distributed.reachability import (
    MASTER_PORT,
    require_free_master_port,
    require_free_port,
    wait_for_master,
)
from fulgurite.distributed.rendezvous import rank_zero_decides

INIT_FILE = "FULGURITE_INIT_FILE"  # variable of the ranks that rank 0 starts: the file:// URL it chose
log = RankedLogger(__name__)


@dataclass(frozen=True)
class InitMethod:
    """An init method of torch.distributed, with its store."""

    url: str  # env://, tcp://<host>:<port> or file:///<path>
    name: str  # prefix of the keys, unique to the job and the restart
    timeout: float  # seconds to wait for other ranks
    uses_agent_store: bool  # torchrun serves the store of env://
    per_phase: bool  # fit and test each start their own ranks, hence their own process group

    def store(self, rank: int, size: int, phase: str) -> Store:
        """Return the store through which the ranks initialize their process group."""
        if self.url.startswith("file://"):
            path = urlparse(self.url).path
            return PrefixStore(self.name, FileStore(f"{path}.{phase}" if self.per_phase else path, size))
        parsed = urlparse(self.url)
        address = parsed.hostname or os.environ["MASTER_ADDR"]
        port = parsed.port or int(os.environ["MASTER_PORT"])
        serves = rank == 0 and not (self.uses_agent_store and self.url == ENV_INIT_METHOD)
        stores: dict[str, TCPStore] = current_context().stores
        endpoint = f"{address}:{port}"
        if endpoint not in stores:
            if not serves:
                wait_for_master(address, port, self.timeout)
            own = "127.0.0.1" if serves else address  # the server listens on all addresses
            timeout = timedelta(seconds=self.timeout)
            stores[endpoint] = TCPStore(own, port, size, serves, timeout=timeout, wait_for_workers=False)
        return PrefixStore(f"{self.name}/{phase}", stores[endpoint])

    def require_free_port(self) -> None:
        """Raise if another process listens on the port."""
        parsed = urlparse(self.url)
        port = parsed.port or int(os.environ["MASTER_PORT"])
        if not any(endpoint.endswith(f":{port}") for endpoint in current_context().stores):  # of an earlier job
            require_free_port(port, source=f"distributed.init_method={self.url}" if parsed.port else MASTER_PORT)


def cluster_environment_plugin(cfg: DictConfig) -> dict[str, Any]:
    """Return the Trainer argument for externally launched ranks."""
    if (launch := current_launch()) is None:
        return {}
    given = OmegaConf.to_container(cfg.trainer.get("plugins") or OmegaConf.create([]), resolve=True)
    if given:
        raise ConfigError([f"trainer.plugins={given}: cannot be combined with {launch.launcher}. Remove it."])
    return {"plugins": [ExternalLaunchEnvironment(launch)]}


def configure_process_group(trainer: Trainer, cfg: DictConfig, timeout: float) -> None:
    """Check the launch, and make the strategy initialize the process group, if it has one.

    A config that cannot be used raises on all ranks before any of them waits `timeout` seconds for another.
    """
    strategy: Any = trainer.strategy
    launch = current_launch()
    method = start_method(strategy)
    _require_matching_launch(trainer, method)
    if not has_process_group(strategy):
        return
    set_comm_variables(cfg)
    backend, reason = choose_backend(strategy)
    url = read_settings(cfg, Distributed).init_method or ENV_INIT_METHOD
    starter = launch.launcher if launch is not None else f"rank 0 ({method})"
    size = trainer.world_size
    log.info("%d processes started by %s, backend %s (%s), init method %s", size, starter, backend, reason, url)
    if strategy.root_device.type == "cpu":
        _warn_oversubscribed(trainer.num_devices)
    if url == ENV_INIT_METHOD and launch is None and method != "popen":
        return
    if url.startswith("file://"):
        url = os.environ.get(INIT_FILE) or rank_zero_decides(cfg, "file", lambda: _make_init_file(url))
        current_context().init_file = url
        if launch is None:
            os.environ[INIT_FILE] = url  # for the ranks that this one starts
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    agent = launch is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    init = InitMethod(url, f"{attempt}/{cfg.paths.output_dir}", timeout, agent, method != "popen")
    if launch is None and url == ENV_INIT_METHOD:
        current_context().reserves_port = True
    elif not url.startswith("file://") and not (agent and url == ENV_INIT_METHOD) and RANK_ZERO_PID not in os.environ:
        rank_zero_decides(cfg, "port", init.require_free_port)
    # no subclass: spawn pickles the strategy
    strategy.setup_environment = partial(init_process_group, strategy, init)


def _require_matching_launch(trainer: Trainer, method: str) -> None:
    """Raise if the trainer expects other ranks than are started."""
    launch = current_launch()
    if launch is None:
        if trainer.num_nodes > 1 and RANK_ZERO_PID not in os.environ:
            rule = "no launcher started the run on several nodes"
            remedy = "Start it with torchrun, srun or mpiexec, or set trainer.num_nodes=1."
            raise ConfigError([f"trainer.num_nodes={trainer.num_nodes}: {rule}. {remedy}"])
        return
    ExternalLaunchEnvironment(launch).validate_settings(trainer.num_devices, trainer.num_nodes)
    if method != "popen" and has_process_group(trainer.strategy):
        rule = f"starts its own ranks, but {launch.launcher} already started {launch.world_size}"
        raise ConfigError([f"trainer.strategy.start_method={method}: {rule}. Set it to popen."])


def _warn_oversubscribed(processes: int) -> None:
    # srun may bind each rank to its own cores; ranks that rank 0 starts inherit its affinity
    bound = current_launch() is None and hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    if processes > cores and RANK_ZERO_PID not in os.environ:
        log.warning("%d processes on %d cores are not faster than trainer.devices=%d", processes, cores, cores)


def init_process_group(strategy: Any, init: InitMethod) -> None:
    """Initialize the process group, then call the strategy's own `setup_environment`."""
    if not torch.distributed.is_initialized():
        strategy.accelerator.setup_device(strategy.root_device)
        strategy.set_world_ranks()
        size = strategy.cluster_environment.world_size()
        backend = process_group_backend(strategy)
        phase = str(strategy.lightning_module.trainer.state.fn.value) if init.per_phase else ""
        torch.distributed.init_process_group(
            backend,
            store=init.store(strategy.global_rank, size, phase),
            rank=strategy.global_rank,
            world_size=size,
            timeout=timedelta(seconds=init.timeout),
            device_id=strategy.root_device if strategy.root_device.type != "cpu" else None,
        )
        if backend == "nccl":
            atexit.register(destroy_process_group)
    type(strategy).setup_environment(strategy)


def reserve_master_port(size: int, timeout: float) -> None:
    """Bind MASTER_PORT before other ranks start, so that no process takes it; raise if one has."""
    require_free_master_port()
    if not current_context().reserves_port:
        return
    current_context().reserves_port = False
    port = int(os.environ.get("MASTER_PORT", "0"))
    store = TCPStore("127.0.0.1", port, size, True, timeout=timedelta(seconds=timeout), wait_for_workers=False)
    os.environ["MASTER_PORT"] = str(store.port)
    current_context().stores[f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{store.port}"] = store


def destroy_process_group() -> None:
    """Destroy the process group, and delete the files of its init method."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    context = current_context()
    file, context.init_file = context.init_file, None
    os.environ.pop(INIT_FILE, None)
    if file is not None:
        path = Path(urlparse(file).path)
        for left in path.parent.glob(f"{path.name}.*"):  # of spawned or forked ranks, which have exited
            left.unlink(missing_ok=True)


def remove_init_file() -> None:
    """Destroy a process group that was initialized through a file."""
    if current_context().init_file is not None:
        destroy_process_group()


def _make_init_file(url: str) -> str:
    """Return the URL of a new file: in a used one, torch waits for its old ranks."""
    path = Path(urlparse(url).path)
    left = sorted(other.name for other in path.parent.glob(f"{path.name}.*"))
    if left:
        remedy = "Delete the files of launches that no longer run."
        log.warning("%s: not used, of other launches: %s. %s", url, ", ".join(left), remedy)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
    except OSError as error:
        raise UserError(
            f"distributed.init_method={url}: cannot be created ({error.strerror}). Name a file on a shared filesystem."
        ) from error
    fresh.unlink()  # the first rank creates it
    return f"file://{fresh}"
