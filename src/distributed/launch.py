"""Which process of how many is this? What torchrun, srun and mpiexec tell by environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from src.base.errors import UserError

DEFAULT_PORT = 29500
# launcher: the variables of rank, world size and local rank
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpiexec (Open MPI)": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "mpiexec (MPICH)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
}


@dataclass(frozen=True)
class Place:
    """This process among those that were started together.

    Attributes:
        rank: 0 to `world_size` - 1.
        world_size: How many processes there are in all.
        local_rank: Among those of this machine.
        launcher: Who started them; `alone` when nobody says so.
        address: Where rank 0 is reached.
        port: At which port of it.
        agents: Whether torchrun's own process keeps the port, not rank 0.
        attempt: How often torchrun has started them before.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launcher: str = "alone"
    address: str = "127.0.0.1"
    port: int = 0
    agents: bool = False
    attempt: int = 0


def read_place(env: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place.

    Args:
        env: Environment variables.

    Raises:
        UserError: The variables contradict themselves or one is missing.
    """
    found = next((name for name, keys in LAUNCHERS.items() if keys[0] in env and keys[1] in env), None)
    if found is None or (found == "srun" and env["SLURM_NTASKS"] == "1"):
        half = [key for key in ("RANK", "WORLD_SIZE") if key in env]
        if half and found is None:
            other = "WORLD_SIZE" if half == ["RANK"] else "RANK"
            raise UserError(f"{half[0]}={env[half[0]]}: {other} is not set; set both, or unset it to run alone")
        return Place()
    rank_key, size_key, local_key = LAUNCHERS[found]
    rank, size = _number(env, rank_key), _number(env, size_key)
    if not 0 <= rank < size:
        raise UserError(
            f"{rank_key}={rank}: with {size_key}={size} ranks go from 0 to {size - 1}; start all with the same number"
        )
    if found == "torchrun" and "TORCHELASTIC_RUN_ID" not in env:
        found = "environment"
    return Place(
        rank=rank,
        world_size=size,
        local_rank=_number(env, local_key) if local_key in env else 0,
        launcher=found,
        address=_address(found, env),
        port=_port(env),
        agents=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=_number(env, "TORCHELASTIC_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in env else 0,
    )


def _number(env: Mapping[str, str], key: str) -> int:
    if not env[key].isdecimal():
        raise UserError(f"{key}={env[key]}: is no whole number from 0 up; the launcher sets it")
    return int(env[key])


def _port(env: Mapping[str, str]) -> int:
    if "MASTER_PORT" not in env:
        # jobs on one machine must not meet each other's
        job = env.get("SLURM_JOB_ID", "")
        return 15000 + int(job[-4:]) if job.isdecimal() else DEFAULT_PORT
    port = _number(env, "MASTER_PORT")
    if not 0 < port < 2**16:
        raise UserError(f"MASTER_PORT={port}: is no port; give a number from 1 to 65535")
    return port


def _address(launcher: str, env: Mapping[str, str]) -> str:
    if address := env.get("MASTER_ADDR"):
        return address
    if launcher == "srun" and (nodes := env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST"))):
        return first_host(nodes)
    local = env.get("OMPI_COMM_WORLD_LOCAL_SIZE", env.get("MPI_LOCALNRANKS"))
    if local is not None and local == env.get("OMPI_COMM_WORLD_SIZE", env.get("PMI_SIZE")):
        return "127.0.0.1"
    raise UserError(
        f"MASTER_ADDR: is not set, and {launcher} does not tell where rank 0 is; set it to the address of its machine"
    )


def first_host(nodes: str) -> str:
    """Return the first host of SLURM's notation for several: `gpu[03-05,7],cpu1` is `gpu03`."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    if match is None:
        raise UserError(f"SLURM_NODELIST={nodes}: names no host; set MASTER_ADDR to the address of rank 0's machine")
    return match[1] + (match[2] or "")
