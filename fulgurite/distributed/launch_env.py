"""Which of several processes is this? What torchrun, srun, mpiexec, or whoever set RANK, tells in the environment.

Processes that Lightning starts for a run are none of these: rank 0 has decided everything before it starts them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fulgurite.core.proc import read_stat

RANK_ZERO_PID = "FULGURITE_RANK_ZERO"  # set for processes that rank 0 has started: its process id
# Each tells a start from others; without any, two of the same command at once meet at one place, and say so.
LAUNCH_ID_VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "MASTER_PORT")


@dataclass(frozen=True)
class LaunchInfo:
    """What a launcher tells one of the processes that it has started.

    Attributes:
        launcher: `torchrun`, `srun`, `mpiexec` or `RANK` (whoever set that variable).
        rank: From 0, over all machines.
        world_size: Number of processes, over all machines; more than 1.
        local_rank: From 0, on this machine; None where the launcher does not say.
        node_rank: Of the machine; None where the launcher does not say.
        local_world_size: Number of processes on this machine; None where the launcher does not say.
        key: The same for all processes of one start, another for another start that runs at the same time.
        current: Of this process; None when it was started alone, or by rank 0.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int | None
    node_rank: int | None
    local_world_size: int | None
    key: str

    current: ClassVar[LaunchInfo | None] = None

    @property
    def is_local_leader(self) -> bool:
        """Whether this process says what all of its machine would say: a typo is one line a machine, not one a rank."""
        return (self.rank if self.local_rank is None else self.local_rank) == 0

    @property
    def prefix(self) -> str:
        """What stands before a line that this process says."""
        return "" if self.rank == 0 else f"[rank {self.rank}] "


def detect_launch(env: Mapping[str, str]) -> LaunchInfo | None:
    """Return what a launcher has told this process; None when it is alone, or rank 0 has started it.

    Args:
        env: The process's environment.
    """
    if RANK_ZERO_PID in env:
        return None
    for find in (_detect_torchrun, _from_rank_variables, _detect_mpiexec, _detect_srun):
        launch = find(env)
        if launch is not None:
            return launch if launch.world_size > 1 else None
    return None


def _detect_torchrun(env: Mapping[str, str]) -> LaunchInfo | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    return _read_launch("torchrun", env, "RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", names)


def _from_rank_variables(env: Mapping[str, str]) -> LaunchInfo | None:
    if not _is_integer(env, "WORLD_SIZE"):
        return None
    rank = "RANK" if "RANK" in env else "LOCAL_RANK"  # Lightning takes the second alone, on one machine
    names = ("MASTER_ADDR", "MASTER_PORT")
    return _read_launch("RANK", env, rank, "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE", names)


def _detect_mpiexec(env: Mapping[str, str]) -> LaunchInfo | None:
    if "OMPI_COMM_WORLD_SIZE" in env:
        of = "OMPI_COMM_WORLD_"
        own = f"{of}LOCAL_RANK", f"{of}NODE_RANK", f"{of}LOCAL_SIZE"
        return _read_launch("mpiexec", env, f"{of}RANK", f"{of}SIZE", *own, ("PMIX_NAMESPACE", "MASTER_PORT"))
    if "SLURM_STEP_ID" in env:  # srun --mpi sets PMI's variables too, and knows more
        return None
    names = ("SLURM_JOB_ID", "PBS_JOBID", "MASTER_PORT")
    return _read_launch("mpiexec", env, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "", "MPI_LOCALNRANKS", names)


def _detect_srun(env: Mapping[str, str]) -> LaunchInfo | None:
    if "SLURM_STEP_ID" not in env:  # a batch script has the other variables too, but is one process
        return None
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return _read_launch("srun", env, "SLURM_PROCID", size, "SLURM_LOCALID", "SLURM_NODEID", "", names)


def _read_launch(
    by: str,
    env: Mapping[str, str],
    rank: str,
    size: str,
    local: str,
    node: str,
    local_size: str,
    names: tuple[str, ...],
) -> LaunchInfo | None:
    if not (_is_integer(env, rank) and _is_integer(env, size)):
        return None
    on_node, of_node, size_here = (
        int(env[name]) if _is_integer(env, name) else None for name in (local, node, local_size)
    )
    words = [by, *(env.get(name, "") for name in names)]
    if by == "mpiexec" and size_here == int(env[size]):  # all on this machine, children of one process
        words.append(_parent_identity())
    elif not any(env.get(name) for name in LAUNCH_ID_VARIABLES):
        words += sys.argv
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    return LaunchInfo(by, int(env[rank]), int(env[size]), on_node, of_node, size_here, key)


def _is_integer(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").isdigit()


def _parent_identity() -> str:
    """Return what names the parent process, also when its number is given to another one later."""
    parent = os.getppid()
    return " ".join([str(parent), *read_stat(parent)[19:20]])


def torchrun_restart() -> tuple[bool, str | None]:
    """Return whether torchrun has started this process in the place of one that failed, and what names that torchrun.

    Its name is the same for all starts that it makes on this machine, and of no other one; None outside torchrun.
    """
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return False, None
    return os.environ["TORCHELASTIC_RESTART_COUNT"] != "0", f"{socket.gethostname()} {_parent_identity()}"
