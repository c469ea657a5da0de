"""Start child ranks, and terminate all ranks with a reason when one fails.

Lightning's own observer kills rank 0 five seconds after a child exits: without an error, and with a record that still
reads `running`.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch.distributed.constants import default_pg_timeout

from fulgurite.compat.lightning import SubprocessScriptLauncher
from fulgurite.compat.lightning_strategies import (
    limit_threads,
    process_group_timeout,
    set_launcher,
    set_process_group_timeout,
    start_child_scripts,
)
from fulgurite.core.context import current_context, setting
from fulgurite.core.errors import ConfigError
from fulgurite.core.proc import exit_with_parent
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import RANK_ZERO_PID, current_launch
from fulgurite.distributed.network_interfaces import require_gloo_interfaces
from fulgurite.distributed.process_group import destroy_process_group, reserve_master_port
from fulgurite.distributed.reachability import port_in_use, require_local_master_address
from fulgurite.distributed.supervision.child_command import job_command_line
from fulgurite.distributed.supervision.epoch_ends import EqualEpochEnds
from fulgurite.distributed.supervision.failures import clear_failures, diagnose_failure, is_peer_loss
from fulgurite.distributed.supervision.liveness import diagnose_missing_ranks, registered_pid
from fulgurite.distributed.supervision.watcher import RankWatcher, take_over_from_stopped_rank_zero
from fulgurite.sources.answers import SNAPSHOT_VARIABLE

EXIT_SECONDS = 30.0  # for the other ranks to exit after rank 0 succeeded
FAILED_EXIT_SECONDS = 10.0  # for them to save after rank 0 failed


def install_supervision(trainer: Trainer, folder: Path, timeout: float) -> float:
    """Supervise the ranks of a trainer, if it has any, and set the timeout of its process group.

    A timeout set on the strategy wins.

    Returns:
        Seconds that ranks wait for each other.
    """
    if not 0 < timeout < math.inf:
        name = setting(f"distributed.rank_timeout_seconds={timeout:g}", f"harden(rank_timeout_seconds={timeout:g})")
        raise ConfigError([f"{name}: is not above 0 and finite. Set e.g. 600."])
    strategy = trainer.strategy
    given = process_group_timeout(strategy)
    if given == default_pg_timeout:
        set_process_group_timeout(strategy, timedelta(seconds=timeout))
    elif isinstance(given, timedelta):
        timeout = given.total_seconds()
    launcher = strategy.launcher
    is_rank = current_launch() is not None or RANK_ZERO_PID in os.environ
    if launcher is None and is_rank and isinstance(strategy, ParallelStrategy):
        # some strategies have no launcher where the process is a rank already
        environment = strategy.cluster_environment
        assert environment is not None
        launcher = SubprocessScriptLauncher(environment, trainer.num_devices, trainer.num_nodes)
    if isinstance(launcher, SubprocessScriptLauncher):
        set_launcher(strategy, SupervisedLauncher(launcher, folder, timeout))
        vars(trainer)["callbacks"].insert(0, EqualEpochEnds(folder, timeout))
    return timeout


class SupervisedLauncher(SubprocessScriptLauncher):
    """Lightning's subprocess launcher with a RankWatcher instead of its observer."""

    def __init__(self, given: SubprocessScriptLauncher, folder: Path, timeout: float) -> None:
        super().__init__(given.cluster_environment, given.num_processes, given.num_nodes)
        self.folder = folder
        self.timeout = timeout
        self.watcher: RankWatcher | None = None
        self.parent: int | None = None
        self.failed = False

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Start the child ranks unless they run already, and call the function."""
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
            with registered_pid(self.folder) if current_launch() is not None else nullcontext():
                return function(*args, **kwargs)
        except BaseException as error:
            self._raise_root_cause(error)
            raise

    def _start(self) -> None:
        require_local_master_address()
        reserve_master_port(self.num_processes * self.num_nodes, self.timeout)
        clear_failures(self.folder)
        os.environ[RANK_ZERO_PID] = str(os.getpid())
        if (sources := current_context().saved_snapshot) is not None:  # the ranks compose what rank 0 has composed
            os.environ[SNAPSHOT_VARIABLE] = str(sources)
        try:
            with job_command_line():
                start_child_scripts(self)
        finally:
            del os.environ[RANK_ZERO_PID]
            os.environ.pop(SNAPSHOT_VARIABLE, None)
        self.watcher = RankWatcher(dict(enumerate(self.procs, start=1)), self.folder, self.timeout)
        self.watcher.start()
        current_context().launchers.append(self)
        atexit.register(self._terminate_others)

    @classmethod
    def terminate_all(cls) -> None:
        """Terminate all child ranks and destroy the process group, so that the next job can start its own."""
        launchers: list[SupervisedLauncher] = current_context().launchers
        while launchers:
            launcher = launchers.pop()
            atexit.unregister(launcher._terminate_others)
            launcher._terminate_others()
        destroy_process_group()

    def _terminate_others(self) -> None:
        assert self.watcher is not None
        self.watcher.terminate_others(FAILED_EXIT_SECONDS if self.failed else EXIT_SECONDS)

    def _raise_root_cause(self, error: BaseException) -> None:
        """Raise the root cause instead of an error that only reports a lost peer or port."""
        self.failed = True
        if self.watcher is not None:
            self.watcher.stopping.set()
        if "EADDRINUSE" in str(error):
            raise port_in_use(self.cluster_environment.main_port) from error
        if not is_peer_loss(error):
            return
        if self.parent is not None:
            take_over_from_stopped_rank_zero(self.parent, self.folder)
        if rank() == 0 and (launch := current_launch()) is not None:
            raise diagnose_missing_ranks(self.folder, launch.world_size, self.timeout) from error
        if rank() == 0:
            others = self.watcher.processes if self.watcher is not None else {}
            failed = diagnose_failure(others, self.folder, self.timeout)
            if self.watcher is not None:
                self.watcher.terminate_others(1.0)
            if failed is not None:
                raise failed from error
