"""Start two ranks with the environment of each launcher, in processes that have torch imported."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not say so

from tests.conftest import SMALL
from tests.support.cli import WarmProcess

TWO = ("trainer=ddp_sim", *SMALL)
Environment = Mapping[str, str]


def free_port() -> str:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def srun(rank: int) -> Environment:
    """Return what srun sets for one of two tasks, including variables that must be ignored."""
    return {
        "SLURM_JOB_ID": "4217",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "no-such-host[1-2]",
        "SLURM_NODELIST": "no-such-host[1-2]",
        "SLURM_JOB_NAME": "train",
    }


def mpich(rank: int) -> Environment:
    """Return what mpiexec of MPICH sets for one of two processes."""
    return {"PMI_RANK": str(rank), "PMI_SIZE": "2", "MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": "2"}


def openmpi(rank: int) -> Environment:
    """Return what mpiexec of Open MPI sets for one of two processes."""
    of = "OMPI_COMM_WORLD"
    local = {f"{of}_LOCAL_RANK": str(rank), f"{of}_LOCAL_SIZE": "2", f"{of}_NODE_RANK": str(rank)}
    return {f"{of}_RANK": str(rank), f"{of}_SIZE": "2", "PMIX_NAMESPACE": "prterun-host-1@1", **local}


def by_hand(rank: int) -> Environment:
    """Return hand-set rank variables; `run_two` sets the port."""
    return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ["TEST_PORT"]}


def torchrun(rank: int) -> Environment:
    """Return what torchrun sets for one of two workers whose agent keeps the store."""
    alike = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    elastic = {"RUN_ID": "none", "RESTART_COUNT": "0", "USE_AGENT_STORE": "True"}
    return {**by_hand(rank), **alike, **{f"TORCHELASTIC_{name}": value for name, value in elastic.items()}}


@contextmanager
def agent() -> Iterator[str]:
    """Serve a store like torchrun's agent, and yield its port."""
    port = free_port()
    store = TCPStore("127.0.0.1", int(port), None, is_master=True, timeout=timedelta(seconds=60))
    yield port
    del store


def run_two(
    launcher: str, folder: Path, *words: str, of_rank: Mapping[int, tuple[str, ...]] | None = None, port: str = ""
) -> list[subprocess.CompletedProcess[str]]:
    """Run a door's command in two processes as a launcher starts them, and return what each said.

    Args:
        launcher: Name of a function of this file.
        folder: For their output.
        words: Overrides for both ranks.
        of_rank: More overrides, by rank.
        port: MASTER_PORT; by default a free one.
    """
    with agent() as store:
        os.environ["TEST_PORT"] = store if launcher == "torchrun" else port or free_port()
        environments = [globals()[launcher](rank) for rank in (0, 1)]
        del os.environ["TEST_PORT"]
        started = []
        for rank, environment in enumerate(environments):
            where = folder / f"rank{rank}-{secrets.token_hex(2)}"
            more = (of_rank or {}).get(rank, ())
            started.append(WarmProcess("train", [*words, *more], where, env=environment))
        return [one.wait() for one in started]
