"""Detect this process's rank and rank 0's address from the launcher's variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fulgurite.core.errors import UserError
from fulgurite.distributed.launch_env import LaunchInfo, detect_launch

DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Placement:
    """The position of this process among all ranks.

    Attributes:
        launcher: Name of the launcher; `alone` without one.
        address: Address of rank 0's machine.
        port: Port of the store on that machine.
        agent_store: Whether torchrun's agent, not rank 0, serves the store.
        attempt: Number of restarts by torchrun.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launcher: str = "alone"
    address: str = "127.0.0.1"
    port: int = 0
    agent_store: bool = False
    attempt: int = 0


def detect_placement(env: Mapping[str, str] = os.environ) -> Placement:
    """Return the placement of this process."""
    launch = detect_launch(env)
    if launch is None:
        _check_rank_variables(env)
        return Placement()
    if launch.rank >= launch.world_size:
        raise UserError(
            f"RANK={launch.rank}: ranks go from 0 to {launch.world_size - 1} with WORLD_SIZE={launch.world_size}. "
            "Start all ranks with the same world size."
        )
    return Placement(
        rank=launch.rank,
        world_size=launch.world_size,
        local_rank=launch.local_rank or 0,
        launcher="environment" if launch.launcher == "RANK" else launch.launcher,
        address=_address(launch, env),
        port=_port(env),
        agent_store=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(env.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def _check_rank_variables(env: Mapping[str, str]) -> None:
    """Raise unless RANK and WORLD_SIZE are both whole numbers, or both unset."""
    present = [key for key in ("RANK", "WORLD_SIZE") if key in env]
    for key in present:
        if not env[key].isdecimal():
            raise UserError(f"{key}={env[key]}: not a whole number. Let the launcher set it, or unset it.")
    if len(present) == 1:
        other = "WORLD_SIZE" if present == ["RANK"] else "RANK"
        raise UserError(
            f"{present[0]}={env[present[0]]}: {other} is not set. Set both, or unset {present[0]} to run one process."
        )


def _port(env: Mapping[str, str]) -> int:
    port = env.get("MASTER_PORT")
    if port is None:
        # two jobs on one machine need different ports
        job = env.get("SLURM_JOB_ID", "")
        return 15000 + int(job[-4:]) if job.isdecimal() else DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT={port}: not a port. Set a number from 1 to 65535.")
    return int(port)


def _address(launch: LaunchInfo, env: Mapping[str, str]) -> str:
    if address := env.get("MASTER_ADDR"):
        return address
    if launch.launcher == "srun" and (nodes := env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST"))):
        return first_host(nodes)
    if launch.local_world_size == launch.world_size:
        return "127.0.0.1"
    launcher = "the environment" if launch.launcher == "RANK" else launch.launcher
    raise UserError(
        f"MASTER_ADDR: not set, and {launcher} does not name the machine of rank 0. Set it to that machine's address."
    )


def first_host(nodes: str) -> str:
    """Return the first host of a Slurm node list, `gpu03` for `gpu[03-05,7],cpu1`."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    if match is None:
        raise UserError(f"SLURM_NODELIST={nodes}: names no host. Set MASTER_ADDR to the address of rank 0's machine.")
    return match[1] + (match[2] or "")
