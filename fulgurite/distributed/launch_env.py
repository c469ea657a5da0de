"""Detect torchrun, srun, mpiexec or a hand-set RANK from the environment.

Ranks that Lightning starts are not externally launched: rank 0 has decided everything before it starts them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fulgurite.core.context import current_context
from fulgurite.core.proc import read_stat

RANK_ZERO_PID = "FULGURITE_RANK_ZERO"  # variable of the ranks that rank 0 starts: its process ID
# Each is unique to a launch. Without any, two concurrent launches of one command share a rendezvous and are refused.
LAUNCH_ID_VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "MASTER_PORT")


@dataclass(frozen=True)
class LaunchInfo:
    """Rank and world size of an externally launched process.

    Attributes:
        launcher: `torchrun`, `srun`, `mpiexec` or `RANK` (set by hand).
        rank: Global rank.
        world_size: Number of ranks on all nodes; above 1.
        local_rank: Rank on this node; None where the launcher does not set it.
        node_rank: Of this node; None where the launcher does not set it.
        local_world_size: Number of ranks on this node; None where the launcher does not set it.
        key: Identifies the launch among concurrent ones; equal on all ranks.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int | None
    node_rank: int | None
    local_world_size: int | None
    key: str

    @property
    def is_local_leader(self) -> bool:
        """Whether this rank reports errors for its node."""
        return (self.rank if self.local_rank is None else self.local_rank) == 0

    @property
    def prefix(self) -> str:
        """Prefix of this rank's error lines."""
        return "" if self.rank == 0 else f"[rank {self.rank}] "


def current_launch() -> LaunchInfo | None:
    """Return what an external launcher has set for this process; None when none has started it."""
    launch: LaunchInfo | None = current_context().launch
    return launch


def detect_launch(env: Mapping[str, str]) -> LaunchInfo | None:
    """Return launcher and rank of this process, or None without a launcher."""
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
    rank = "RANK" if "RANK" in env else "LOCAL_RANK"  # on one node Lightning accepts LOCAL_RANK alone
    names = ("MASTER_ADDR", "MASTER_PORT")
    return _read_launch("RANK", env, rank, "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE", names)


def _detect_mpiexec(env: Mapping[str, str]) -> LaunchInfo | None:
    if "OMPI_COMM_WORLD_SIZE" in env:
        of = "OMPI_COMM_WORLD_"
        own = f"{of}LOCAL_RANK", f"{of}NODE_RANK", f"{of}LOCAL_SIZE"
        return _read_launch("mpiexec", env, f"{of}RANK", f"{of}SIZE", *own, ("PMIX_NAMESPACE", "MASTER_PORT"))
    if "SLURM_STEP_ID" in env:  # srun --mpi sets PMI's variables too; SLURM's are complete
        return None
    names = ("SLURM_JOB_ID", "PBS_JOBID", "MASTER_PORT")
    return _read_launch("mpiexec", env, "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "", "MPI_LOCALNRANKS", names)


def _detect_srun(env: Mapping[str, str]) -> LaunchInfo | None:
    if "SLURM_STEP_ID" not in env:  # a batch script has the other variables too, but is no step
        return None
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return _read_launch("srun", env, "SLURM_PROCID", size, "SLURM_LOCALID", "SLURM_NODEID", "", names)


def _read_launch(
    launcher: str,
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
    local_rank, node_rank, local_world_size = (
        int(env[name]) if _is_integer(env, name) else None for name in (local, node, local_size)
    )
    parts = [launcher, *(env.get(name, "") for name in names)]
    if launcher == "mpiexec" and local_world_size == int(env[size]):  # one node: all ranks have the same parent
        parts.append(_parent_identity())
    elif not any(env.get(name) for name in LAUNCH_ID_VARIABLES):
        parts += sys.argv
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return LaunchInfo(launcher, int(env[rank]), int(env[size]), local_rank, node_rank, local_world_size, key)


def _is_integer(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").isdigit()


def _parent_identity() -> str:
    """Return process ID and start time of the parent: the ID may be reused."""
    parent = os.getppid()
    return " ".join([str(parent), *read_stat(parent)[19:20]])


def torchrun_restart() -> tuple[bool, str | None]:
    """Return whether torchrun restarted this rank, and the identity of that torchrun.

    The identity is unique to one torchrun on one node; None outside torchrun.
    """
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return False, None
    return os.environ["TORCHELASTIC_RESTART_COUNT"] != "0", f"{socket.gethostname()} {_parent_identity()}"
