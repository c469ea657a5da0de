"""Detect torchrun, srun, mpiexec or a hand-set RANK from the environment.

Ranks that Lightning starts are not externally launched: rank 0 chooses the run directory and the checkpoint to resume
from before it starts them, so that they need no rendezvous.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fulgurite.core.context import current_context
from fulgurite.core.formatting import parse_count
from fulgurite.core.proc import read_stat

RANK_ZERO_PID = "FULGURITE_RANK_ZERO"  # variable of the ranks that rank 0 starts: its process ID
# Each is unique to a launch. Without any, two concurrent launches of one command share a rendezvous and are refused.
LAUNCH_ID_VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "MASTER_PORT")


@dataclass(frozen=True)
class LaunchInfo:
    """Rank and world size of an externally launched process; None where the launcher does not set a field."""

    launcher: str  # torchrun, srun, mpiexec or RANK (set by hand)
    rank: int
    world_size: int  # above 1
    local_rank: int | None
    node_rank: int | None
    local_world_size: int | None
    key: str  # identifies the launch among concurrent ones; equal on all ranks

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
    launch = _detect_torchrun(env) or _from_rank_variables(env) or _detect_mpiexec(env) or _detect_srun(env)
    return launch if launch is not None and launch.world_size > 1 else None


def _detect_torchrun(env: Mapping[str, str]) -> LaunchInfo | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")
    ids = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    return _read_launch("torchrun", env, names, ids)


def _from_rank_variables(env: Mapping[str, str]) -> LaunchInfo | None:
    if parse_count(env.get("WORLD_SIZE", "")) is None:
        return None
    rank = "RANK" if "RANK" in env else "LOCAL_RANK"  # on one node Lightning accepts LOCAL_RANK alone
    names = (rank, "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE")
    return _read_launch("RANK", env, names, ("MASTER_ADDR", "MASTER_PORT"))


def _detect_mpiexec(env: Mapping[str, str]) -> LaunchInfo | None:
    if "OMPI_COMM_WORLD_SIZE" in env:
        rank, size, local_rank, local_size = (
            f"OMPI_COMM_WORLD_{end}" for end in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
        )
        # OMPI_COMM_WORLD_NODE_RANK is the rank of a process on its node, over all jobs, and not that of the node
        names = (rank, size, local_rank, "", local_size)
        return _read_launch("mpiexec", env, names, ("PMIX_NAMESPACE", "MASTER_PORT"))
    if "SLURM_STEP_ID" in env:  # srun --mpi sets PMI's variables too; SLURM's are complete
        return None
    names = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "", "MPI_LOCALNRANKS")
    return _read_launch("mpiexec", env, names, ("SLURM_JOB_ID", "PBS_JOBID", "MASTER_PORT"))


def _detect_srun(env: Mapping[str, str]) -> LaunchInfo | None:
    if "SLURM_STEP_ID" not in env:  # a batch script has the other variables too, but is no step
        return None
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    ids = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return _read_launch("srun", env, ("SLURM_PROCID", size, "SLURM_LOCALID", "SLURM_NODEID", ""), ids)


def _read_launch(
    launcher: str, env: Mapping[str, str], names: tuple[str, ...], ids: tuple[str, ...]
) -> LaunchInfo | None:
    """Read rank, world size, local rank, node rank and local world size from variables, and the key from IDs."""
    rank, size, *optional = (parse_count(env.get(name, "")) for name in names)
    if rank is None or size is None:
        return None
    parts = [launcher, *(env.get(name, "") for name in ids)]
    if launcher == "mpiexec" and optional[2] == size:  # one node: all ranks have the same parent
        parts.append(_parent_identity())
    elif not any(env.get(name) for name in LAUNCH_ID_VARIABLES):
        parts += sys.argv
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return LaunchInfo(launcher, rank, size, optional[0], optional[1], optional[2], key)


def _parent_identity() -> str:
    """Return process ID and start time of the parent: the ID may be reused."""
    parent = os.getppid()
    return " ".join([str(parent), *read_stat(parent)[19:20]])


def torchrun_restart() -> tuple[bool, str | None]:
    """Return whether torchrun restarted this rank, and an ID of this node's torchrun; False and None without one."""
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return False, None
    return os.environ["TORCHELASTIC_RESTART_COUNT"] != "0", f"{socket.gethostname()} {_parent_identity()}"
