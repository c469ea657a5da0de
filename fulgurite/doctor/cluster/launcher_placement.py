"""Which rank of how many the doctor is: what training reads of its launcher, and where rank 0 is reached."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from fulgurite.core.errors import UserError
from fulgurite.distributed.launch_env import LaunchInfo, detect_launch
from fulgurite.doctor.cluster.placement import Place

DEFAULT_PORT = 29500


def read_place(env: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place.

    Args:
        env: Environment variables.

    Raises:
        UserError: The variables contradict themselves or one is missing.
    """
    launch = detect_launch(env)
    if launch is None:
        _require_alone(env)
        return Place()
    if launch.rank >= launch.world_size:
        raise UserError(
            f"RANK={launch.rank}: with WORLD_SIZE={launch.world_size} ranks go from 0 to {launch.world_size - 1}; "
            "start all with the same number"
        )
    return Place(
        rank=launch.rank,
        world_size=launch.world_size,
        local_rank=launch.local_rank or 0,
        launcher="environment" if launch.launcher == "RANK" else launch.launcher,
        address=_address(launch, env),
        port=_port(env),
        agents=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(env.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def _require_alone(env: Mapping[str, str]) -> None:
    """Refuse variables of which one is set and is no number, or is set without the other."""
    there = [key for key in ("RANK", "WORLD_SIZE") if key in env]
    for key in there:
        if not env[key].isdecimal():
            raise UserError(f"{key}={env[key]}: is no whole number from 0 up; the launcher sets it")
    if len(there) == 1:
        other = "WORLD_SIZE" if there == ["RANK"] else "RANK"
        raise UserError(f"{there[0]}={env[there[0]]}: {other} is not set; set both, or unset it to run alone")


def _port(env: Mapping[str, str]) -> int:
    port = env.get("MASTER_PORT")
    if port is None:
        # jobs on one machine must not meet each other's
        job = env.get("SLURM_JOB_ID", "")
        return 15000 + int(job[-4:]) if job.isdecimal() else DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT={port}: is no port; give a number from 1 to 65535")
    return int(port)


def _address(launch: LaunchInfo, env: Mapping[str, str]) -> str:
    if address := env.get("MASTER_ADDR"):
        return address
    if launch.launcher == "srun" and (nodes := env.get("SLURM_STEP_NODELIST", env.get("SLURM_NODELIST"))):
        return first_host(nodes)
    if launch.local_world_size == launch.world_size:
        return "127.0.0.1"
    by = "the environment" if launch.launcher == "RANK" else launch.launcher
    raise UserError(
        f"MASTER_ADDR: is not set, and {by} does not tell where rank 0 is; set it to the address of its machine"
    )


def first_host(nodes: str) -> str:
    """Return the first host of SLURM's notation for several: `gpu[03-05,7],cpu1` is `gpu03`."""
    match = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", nodes)
    if match is None:
        raise UserError(f"SLURM_NODELIST={nodes}: names no host; set MASTER_ADDR to the address of rank 0's machine")
    return match[1] + (match[2] or "")
