"""Starts the other processes of a run as Lightning does, and ends them all together, with a reason, when one fails.

Lightning's own observer kills the main process five seconds after another has died: nothing is said, and the record
goes on saying that the run is running.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch.distributed.constants import default_pg_timeout

from fulgurite.compat.lightning import (
    SubprocessScriptLauncher,
    limit_threads,
    process_group_timeout,
    set_launcher,
    set_process_group_timeout,
    start_child_scripts,
)
from fulgurite.core.errors import ConfigError
from fulgurite.core.proc import exit_with_parent
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import RANK_ZERO_PID, LaunchInfo
from fulgurite.distributed.ports import port_in_use
from fulgurite.distributed.process_group import destroy_process_group, reserve_master_port
from fulgurite.distributed.reachability import require_gloo_interfaces, require_local_master_address
from fulgurite.distributed.supervision.child_command import job_command_line
from fulgurite.distributed.supervision.failures import clear_failures, diagnose_failure, is_peer_loss
from fulgurite.distributed.supervision.liveness import diagnose_missing_ranks, registered_pid
from fulgurite.distributed.supervision.watcher import RankWatcher, take_over_from_stopped_rank_zero

EXIT_SECONDS = 30.0  # seconds that the other ranks may take to end after a good end of this one
FAILED_EXIT_SECONDS = 10.0  # the same after a bad one, in which they may still save


def install_supervision(trainer: Trainer, folder: Path, timeout: float) -> float:
    """Watch the processes that a trainer is going to start, and let none wait for another for ever.

    Args:
        trainer: With any strategy; nothing is done for one that starts no processes.
        folder: The run directory.
        timeout: Seconds that processes wait for one another; a strategy that was given one keeps it.

    Returns:
        The seconds that they wait.

    Raises:
        ConfigError: The time is not above 0.
    """
    if timeout <= 0:
        raise ConfigError([f"distributed.rank_timeout_seconds={timeout:g}: is not above 0 seconds; the default is 600"])
    strategy = trainer.strategy
    given = process_group_timeout(strategy)
    if given == default_pg_timeout:
        set_process_group_timeout(strategy, timedelta(seconds=timeout))
    elif isinstance(given, timedelta):
        timeout = given.total_seconds()
    launcher = strategy.launcher
    if launcher is None and LaunchInfo.current is not None and isinstance(strategy, ParallelStrategy):
        # where processes are there already some strategies have no launcher, and nobody to say which one failed
        environment = strategy.cluster_environment
        assert environment is not None
        launcher = SubprocessScriptLauncher(environment, trainer.num_devices, trainer.num_nodes)
    if isinstance(launcher, SubprocessScriptLauncher):
        set_launcher(strategy, SupervisedLauncher(launcher, folder, timeout))
    return timeout


class SupervisedLauncher(SubprocessScriptLauncher):
    """Lightning's launcher of one process a device, with our watcher in place of its observer.

    Args:
        given: The launcher that the strategy made.
        folder: The run directory.
        timeout: Seconds that processes wait for one another.

    Attributes:
        started: Those of this process whose other processes may still live.
    """

    started: ClassVar[list[SupervisedLauncher]] = []

    def __init__(self, given: SubprocessScriptLauncher, folder: Path, timeout: float) -> None:
        super().__init__(given.cluster_environment, given.num_processes, given.num_nodes)
        self.folder = folder
        self.timeout = timeout
        self.watcher: RankWatcher | None = None
        self.parent: int | None = None
        self.failed = False

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the other processes unless they run already, and call the function.

        Raises:
            RankFailed: Another rank failed; the message names it.
            UserError: The port at which the processes meet is taken.
        """
        require_gloo_interfaces()
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._start()
        elif parent := os.environ.pop(RANK_ZERO_PID, None):
            self.parent = int(parent)
            exit_with_parent(self.parent)
        limit_threads(self.num_processes)
        try:
            with registered_pid(self.folder) if LaunchInfo.current is not None else nullcontext():
                return function(*args, **kwargs)
        except BaseException as error:
            self._raise_root_cause(error)
            raise

    def _start(self) -> None:
        require_local_master_address()
        reserve_master_port(self.num_processes * self.num_nodes, self.timeout)
        clear_failures(self.folder)
        os.environ[RANK_ZERO_PID] = str(os.getpid())
        try:
            with job_command_line():
                start_child_scripts(self)
        finally:
            del os.environ[RANK_ZERO_PID]
        self.watcher = RankWatcher(dict(enumerate(self.procs, start=1)), self.folder, self.timeout)
        self.watcher.start()
        SupervisedLauncher.started.append(self)
        atexit.register(self._end_others)

    @classmethod
    def terminate_all(cls) -> None:
        """End all processes that were started and leave their group, so that this process can start others."""
        while cls.started:
            launcher = cls.started.pop()
            atexit.unregister(launcher._end_others)
            launcher._end_others()
        destroy_process_group()

    def _end_others(self) -> None:
        assert self.watcher is not None
        self.watcher.end_others(FAILED_EXIT_SECONDS if self.failed else EXIT_SECONDS)

    def _raise_root_cause(self, error: BaseException) -> None:
        """Raise what is at fault instead of an error that only says that other ranks or the port were lost."""
        self.failed = True
        if self.watcher is not None:
            self.watcher.leaving.set()
        if "EADDRINUSE" in str(error):
            raise port_in_use(self.cluster_environment.main_port) from error
        if not is_peer_loss(error):
            return
        if self.parent is not None:
            take_over_from_stopped_rank_zero(self.parent, self.folder)
        if rank() == 0 and LaunchInfo.current is not None:
            raise diagnose_missing_ranks(self.folder, LaunchInfo.current.world_size, self.timeout) from error
        if rank() == 0:
            others = self.watcher.processes if self.watcher is not None else {}
            failed = diagnose_failure(others, self.folder, self.timeout)
            if self.watcher is not None:
                self.watcher.end_others(1.0)
            if failed is not None:
                raise failed from error
