"""How the processes of a run form their group: where they find one another, over what, and by which backend.

Lightning knows one way, `env://`, and that leaves its keys in torchrun's store, where the next job of a sweep would
take them for its own. A group that Lightning finds formed it takes.
"""

from __future__ import annotations

import atexit
import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlparse

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # torch does not say so

from fulgurite.compat.lightning import has_process_group, process_group_backend, start_method
from fulgurite.config.schema import Distributed, read_settings
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.distributed.agreement import rank_zero_decides
from fulgurite.distributed.backend import choose_backend
from fulgurite.distributed.cluster_environment import ExternalLaunchEnvironment
from fulgurite.distributed.comm_env import ENV_INIT_METHOD, set_comm_variables
from fulgurite.distributed.launch_env import RANK_ZERO_PID, LaunchInfo
from fulgurite.distributed.ports import MASTER_PORT, require_free_master_port, require_free_port
from fulgurite.distributed.reachability import wait_for_master

INIT_FILE = "FULGURITE_MEET"  # set for processes that rank 0 starts: the file that it has chosen
log = RankedLogger(__name__)


@dataclass(frozen=True)
class InitMethod:
    """Where the processes of a run find one another.

    Attributes:
        url: `env://`, `tcp://<host>:<port>` or `file:///<path>`.
        name: Of the job, so that jobs one after another do not read one another's keys.
        timeout: Seconds to wait for one another.
        agent: Whether torchrun keeps a store at `env://`.
        phases: Whether each of fit and test has processes of its own, which form a group of their own.
        servers: Stores of this process by address: rank 0 serves them for all jobs.
        file: The `url` of this process, where that is a file.
        holds: Whether this process, before it starts others, takes the port at which they meet.
    """

    url: str
    name: str
    timeout: float
    agent: bool
    phases: bool

    servers: ClassVar[dict[str, TCPStore]] = {}
    file: ClassVar[str | None] = None
    reserves_port: ClassVar[bool] = False

    def store(self, rank: int, size: int, phase: str) -> Store:
        """Return the store in which the processes leave their addresses."""
        if self.url.startswith("file://"):
            path = urlparse(self.url).path
            return PrefixStore(self.name, FileStore(f"{path}.{phase}" if self.phases else path, size))
        parsed = urlparse(self.url)
        address = parsed.hostname or os.environ["MASTER_ADDR"]
        port = parsed.port or int(os.environ["MASTER_PORT"])
        serves = rank == 0 and not (self.agent and self.url == ENV_INIT_METHOD)
        return PrefixStore(f"{self.name}/{phase}", self._connect(address, port, size, serves=serves))

    def _connect(self, address: str, port: int, size: int, *, serves: bool) -> TCPStore:
        where = f"{address}:{port}"
        if where not in InitMethod.servers:
            if not serves:
                wait_for_master(address, port, self.timeout)
            # it serves at all addresses; that the one told leads here is for the others to find out
            own = "127.0.0.1" if serves else address
            InitMethod.servers[where] = TCPStore(
                own, port, size, serves, timeout=timedelta(seconds=self.timeout), wait_for_workers=False
            )
        return InitMethod.servers[where]

    def require_free(self) -> None:
        """Refuse a port that another process listens at; rank 0 asks for all.

        Raises:
            UserError: So it is.
        """
        parsed = urlparse(self.url)
        port = parsed.port or int(os.environ["MASTER_PORT"])
        if not any(where.endswith(f":{port}") for where in InitMethod.servers):  # of an earlier job
            require_free_port(port, asked=f"distributed.init_method={self.url}" if parsed.port else MASTER_PORT)


def cluster_environment_plugin(cfg: DictConfig) -> dict[str, Any]:
    """Return the argument that tells a Trainer of processes that were started from outside; none where it is alone."""
    if LaunchInfo.current is None:
        return {}
    given = OmegaConf.to_container(cfg.trainer.get("plugins") or OmegaConf.create([]), resolve=True)
    if given:
        raise ConfigError(
            [f"trainer.plugins={given}: cannot be given under {LaunchInfo.current.launcher}; leave it out"]
        )
    return {"plugins": [ExternalLaunchEnvironment(LaunchInfo.current)]}


def configure_process_group(trainer: Trainer, cfg: DictConfig, timeout: float) -> None:
    """Check how the processes of a run are to form their group, and have them do so.

    Args:
        trainer: With any strategy; nothing is done for one process.
        cfg: The run's config.
        timeout: Seconds to wait for one another.

    Raises:
        UserError: Processes, backend or store cannot be had as asked; on all ranks before any waits for another.
    """
    strategy: Any = trainer.strategy
    launch = LaunchInfo.current
    starts = start_method(strategy)
    _require_matching_launch(trainer, starts)
    if not has_process_group(strategy):
        return
    set_comm_variables(cfg)
    backend, reason = choose_backend(strategy)
    url = read_settings(cfg, Distributed).init_method or ENV_INIT_METHOD
    by = launch.launcher if launch is not None else f"rank 0 ({starts})"
    log.info("%d processes started by %s, backend %s (%s), meeting at %s", trainer.world_size, by, backend, reason, url)
    if strategy.root_device.type == "cpu":
        _warn_oversubscribed(trainer.num_devices)
    if url == ENV_INIT_METHOD and launch is None and starts != "popen":
        return
    if url.startswith("file://"):
        InitMethod.file = url = os.environ.get(INIT_FILE) or rank_zero_decides(
            cfg, "file", lambda: _make_init_file(url)
        )
        if launch is None:
            os.environ[INIT_FILE] = url  # for the processes that this one starts
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    agent = launch is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    meet = InitMethod(url, f"{attempt}/{cfg.paths.output_dir}", timeout, agent, starts != "popen")
    if launch is None and url == ENV_INIT_METHOD:
        InitMethod.reserves_port = True
    elif not url.startswith("file://") and not (agent and url == ENV_INIT_METHOD) and RANK_ZERO_PID not in os.environ:
        rank_zero_decides(cfg, "port", meet.require_free)
    # not a class of its own: spawn pickles the strategy
    strategy.setup_environment = partial(init_process_group, strategy, meet)


def _require_matching_launch(trainer: Trainer, starts: str) -> None:
    """Refuse a trainer that counts on other processes than were started, or on nobody to start them.

    Args:
        trainer: With any strategy.
        starts: How its strategy starts processes.

    Raises:
        ConfigError: One line with what to set.
    """
    launch = LaunchInfo.current
    if launch is None:
        if trainer.num_nodes > 1 and RANK_ZERO_PID not in os.environ:
            rule = "nothing has started the run on several machines"
            remedy = "start it with torchrun, srun or mpiexec, or use trainer.num_nodes=1"
            raise ConfigError([f"trainer.num_nodes={trainer.num_nodes}: {rule}; {remedy}"])
        return
    ExternalLaunchEnvironment(launch).validate_settings(trainer.num_devices, trainer.num_nodes)
    if starts != "popen" and has_process_group(trainer.strategy):
        rule = f"starts processes itself, and {launch.launcher} has started {launch.world_size} already"
        raise ConfigError([f"trainer.strategy.start_method={starts}: {rule}; use popen, e.g. trainer=ddp_sim"])


def _warn_oversubscribed(processes: int) -> None:
    """Warn of more processes on this machine than cores that they may use.

    Args:
        processes: On this machine, each of which computes on the CPU.
    """
    # srun may bind each process to cores of its own; those that rank 0 starts have what it has
    bound = LaunchInfo.current is None and hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    if processes > cores and RANK_ZERO_PID not in os.environ:
        log.warning("%d processes on %d cores take turns: not faster than trainer.devices=%d", processes, cores, cores)


def init_process_group(strategy: Any, meet: InitMethod) -> None:
    """Form the group in the way that was asked, then do what the strategy does.

    Args:
        strategy: Lightning's, of several processes.
        meet: Where they find one another.
    """
    if not torch.distributed.is_initialized():
        strategy.accelerator.setup_device(strategy.root_device)
        strategy.set_world_ranks()
        size = strategy.cluster_environment.world_size()
        backend = process_group_backend(strategy)
        phase = str(strategy.lightning_module.trainer.state.fn.value) if meet.phases else ""
        torch.distributed.init_process_group(
            backend,
            store=meet.store(strategy.global_rank, size, phase),
            rank=strategy.global_rank,
            world_size=size,
            timeout=timedelta(seconds=meet.timeout),
            device_id=strategy.root_device if strategy.root_device.type != "cpu" else None,
        )
        if backend == "nccl":
            atexit.register(destroy_process_group)
    type(strategy).setup_environment(strategy)


def reserve_master_port(size: int, timeout: float) -> None:
    """Listen at the port at which processes will meet, before they are told of it: a port only chosen may be lost.

    Args:
        size: Number of processes.
        timeout: Seconds that they wait for one another.

    Raises:
        UserError: The one that was asked for is taken.
    """
    require_free_master_port()
    if not InitMethod.reserves_port:
        return
    InitMethod.reserves_port = False
    asked = int(os.environ.get("MASTER_PORT", "0"))
    store = TCPStore("127.0.0.1", asked, size, True, timeout=timedelta(seconds=timeout), wait_for_workers=False)
    os.environ["MASTER_PORT"] = str(store.port)
    InitMethod.servers[f"{os.environ.get('MASTER_ADDR', '127.0.0.1')}:{store.port}"] = store


def destroy_process_group() -> None:
    """Leave the group of all processes, if there is one; the last to leave removes the file at which they have met."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    file, InitMethod.file = InitMethod.file, None
    os.environ.pop(INIT_FILE, None)
    if file is not None:
        path = Path(urlparse(file).path)
        for left in path.parent.glob(f"{path.name}.*"):  # of processes that were spawned or forked, and are gone
            left.unlink(missing_ok=True)


def remove_init_file() -> None:
    """Leave the group of processes that have met at a file, at the end of the program."""
    if InitMethod.file is not None:
        destroy_process_group()


def _make_init_file(url: str) -> str:
    """Return a meeting place of its own for this start: in a file that others have used, one waits for those others.

    Raises:
        UserError: No file can be made there.
    """
    path = Path(urlparse(url).path)
    left = sorted(other.name for other in path.parent.glob(f"{path.name}.*"))
    if left:
        log.warning("%s: left by other starts, not used: %s; remove what is of none that runs", url, ", ".join(left))
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
    except OSError as error:
        raise UserError(
            f"distributed.init_method={url}: cannot be made ({error.strerror}); "
            "name a file in a folder all machines see"
        ) from error
    fresh.unlink()  # the first of the processes makes it
    return f"file://{fresh}"
