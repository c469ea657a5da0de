"""How the processes of a run form their group: where they find one another, over what, and by which backend.

Lightning knows one way, `env://`, and that leaves its keys in torchrun's store, where the next job of a sweep would
take them for its own. A group that Lightning finds formed it takes.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlparse

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from torch.distributed import FileStore, PrefixStore, Store, TCPStore

from src.base.errors import ConfigError, UserError
from src.base.logs import RankedLogger, rank
from src.run.processes.backend import choose_backend
from src.run.processes.environment import LaunchedProcesses
from src.run.processes.launched import PARENT, Launch
from src.run.processes.network import ENV, set_variables
from src.run.processes.reach import wait_for_master
from src.run.processes.together import wait_for_all

log = RankedLogger(__name__)


@dataclass(frozen=True)
class Meet:
    """Where the processes of a run find one another.

    Attributes:
        url: `env://`, `tcp://<host>:<port>` or `file:///<path>`.
        name: Of the job, so that jobs one after another do not read one another's keys.
        timeout: Seconds to wait for one another.
        agent: Whether torchrun keeps a store at `env://`.
        phases: Whether each of fit and test has processes of its own, which form a group of their own.
        servers: Stores of this process by address: rank 0 serves them for all jobs.
    """

    url: str
    name: str
    timeout: float
    agent: bool
    phases: bool

    servers: ClassVar[dict[str, TCPStore]] = {}

    def store(self, rank: int, size: int, phase: str) -> Store:
        """Return the store in which the processes leave their addresses.

        Raises:
            UserError: It cannot be opened: the port is taken, or nobody answers there.
        """
        if self.url.startswith("file://"):
            path = urlparse(self.url).path
            return PrefixStore(self.name, FileStore(f"{path}.{phase}" if self.phases else path, size))
        parsed = urlparse(self.url)
        address = parsed.hostname or os.environ["MASTER_ADDR"]
        port = parsed.port or int(os.environ["MASTER_PORT"])
        serves = rank == 0 and not (self.agent and self.url == ENV)
        return PrefixStore(f"{self.name}/{phase}", self._connect(address, port, size, serves=serves))

    def _connect(self, address: str, port: int, size: int, *, serves: bool) -> TCPStore:
        where = f"{address}:{port}"
        if where not in Meet.servers:
            if not serves:
                wait_for_master(address, port, self.timeout)
            try:
                store = TCPStore(
                    address, port, size, serves, timeout=timedelta(seconds=self.timeout), wait_for_workers=False
                )
            except (torch.distributed.DistError, RuntimeError) as error:
                if serves and "EADDRINUSE" in str(error):
                    raise UserError(
                        f"{self._asked(where)}: another process listens there; name another port"
                    ) from error
                raise
            Meet.servers[where] = store
        return Meet.servers[where]

    def _asked(self, where: str) -> str:
        return f"extras.init_method={self.url}" if self.url != ENV else f"MASTER_PORT={where.rpartition(':')[2]}"


def launched_plugins(cfg: DictConfig) -> dict[str, Any]:
    """Return the argument that tells a Trainer of processes that were started from outside; none where it is alone."""
    if Launch.current is None:
        return {}
    given = OmegaConf.to_container(cfg.trainer.get("plugins") or OmegaConf.create([]), resolve=True)
    if given:
        raise ConfigError([f"trainer.plugins={given}: cannot be given under {Launch.current.by}; leave it out"])
    return {"plugins": [LaunchedProcesses(Launch.current)]}


def prepare_group(trainer: Trainer, cfg: DictConfig, timeout: float) -> None:
    """Check how the processes of a run are to form their group, and have them do so.

    Args:
        trainer: With any strategy; nothing is done for one process.
        cfg: The run's config.
        timeout: Seconds to wait for one another.

    Raises:
        UserError: Processes, backend or store cannot be had as asked; on all ranks before any waits for another.
    """
    strategy: Any = trainer.strategy
    launch = Launch.current
    if launch is not None:
        LaunchedProcesses(launch).validate_settings(trainer.num_devices, trainer.num_nodes)
    elif trainer.num_nodes > 1 and PARENT not in os.environ:
        raise ConfigError(
            [
                f"trainer.num_nodes={trainer.num_nodes}: nothing has started the run on several machines; "
                "start it with torchrun, srun or mpiexec, or use trainer.num_nodes=1"
            ]
        )
    if not hasattr(strategy, "_get_process_group_backend"):
        return
    starts = getattr(strategy, "_start_method", "popen")
    if launch is not None and starts != "popen":
        raise ConfigError(
            [
                f"trainer.strategy.start_method={starts}: starts processes itself, and {launch.by} has started "
                f"{launch.size} already; use popen, e.g. trainer=ddp_sim"
            ]
        )
    set_variables(cfg)
    backend, reason = choose_backend(strategy, given=OmegaConf.select(cfg, "trainer.strategy"))
    url = str(OmegaConf.select(cfg, "extras.init_method") or ENV)
    if url.startswith("file://") and rank() == 0:
        _require_fresh(Path(urlparse(url).path), Path(cfg.paths.output_dir))
    if launch is not None:
        wait_for_all(cfg, "file")  # rank 0 has looked at it before another opens it
    by = launch.by if launch is not None else f"rank 0 ({starts})"
    log.info("%d processes started by %s, backend %s (%s), meeting at %s", trainer.world_size, by, backend, reason, url)
    if url == ENV and launch is None:
        return
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    agent = launch is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    meet = Meet(url, f"{attempt}/{cfg.paths.output_dir}", timeout, agent, starts != "popen")
    # not a class of its own: spawn pickles the strategy
    strategy.setup_environment = partial(form_group, strategy, meet)


def form_group(strategy: Any, meet: Meet) -> None:
    """Form the group in the way that was asked, then do what the strategy does.

    Args:
        strategy: Lightning's, of several processes.
        meet: Where they find one another.
    """
    if not torch.distributed.is_initialized():
        strategy.accelerator.setup_device(strategy.root_device)
        strategy.set_world_ranks()
        size = strategy.cluster_environment.world_size()
        backend = strategy._get_process_group_backend()
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
            atexit.register(leave_group)
    type(strategy).setup_environment(strategy)


def leave_group() -> None:
    """Leave the group of all processes, if there is one."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _require_fresh(path: Path, output_dir: Path) -> None:
    """Refuse a file in which processes have met before: they would wait for those that are gone.

    One in the run's own directory is removed, because nobody else can be at it.

    Raises:
        UserError: It is there, or cannot be made.
    """
    used = [path, *path.parent.glob(f"{path.name}.*")] if path.parent.is_dir() else []
    used = [file for file in used if file.exists()]
    asked = f"extras.init_method=file://{path}"
    if used and not path.is_relative_to(output_dir):
        raise UserError(
            f"{asked}: is there already, from a run that was killed or that runs now; remove {used[0]} or name another"
        )
    for file in used:
        log.warning("%s: left by an earlier start, removed", file)
        file.unlink()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(
            f"{asked}: cannot be made ({error.strerror}); name a file in a folder all machines see"
        ) from error
    path.unlink()
    atexit.register(_remove, path)


def _remove(path: Path) -> None:
    if path.parent.is_dir():
        for file in (path, *path.parent.glob(f"{path.name}.*")):
            file.unlink(missing_ok=True)
