"""Run a real Slurm with one node on this machine for a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# the folder of the unpacked packages, if Slurm is not installed
PREFIX = Path(os.environ.get("TEST_SLURM_PREFIX", "/"))
LIBRARIES = PREFIX / "usr/lib/x86_64-linux-gnu"
PROGRAMS = f"{PREFIX / 'usr/bin'}:{PREFIX / 'usr/sbin'}"
# Debian's names carry a suffix
CONTROLLER, DAEMON, STEP = (
    shutil.which(name, path=PROGRAMS) or shutil.which(f"{name}-wlm", path=PROGRAMS)
    for name in ("slurmctld", "slurmd", "slurmstepd")
)
CONFIG = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/daemon.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/daemon.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
{plugins}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run Slurm and yield the environment for its commands.

    Args:
        folder: For its files.
    """
    assert CONTROLLER is not None
    assert DAEMON is not None
    assert STEP is not None
    folder.mkdir()
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    host, ports = socket.gethostname().split(".")[0], _free_ports(2)
    plugins = LIBRARIES / "slurm-wlm"
    config = CONFIG.format(
        host=host,
        controller=ports[0],
        daemon=ports[1],
        user=os.environ.get("USER", "root"),
        folder=folder,
        plugins=f"PluginDir={plugins}" if plugins.is_dir() else "",
    )
    (folder / "slurm.conf").write_text(config)
    env = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{LIBRARIES}:{plugins}",
    }
    commands = [CONTROLLER, "-D"], [DAEMON, "-D", "-N", host, "-d", STEP]
    started = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            time.sleep(1)
        _wait_until_idle(env, folder)
        yield env
    finally:
        ask(env, "scancel", "--user", os.environ.get("USER", "root"))
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def ask(env: dict[str, str], *command: str) -> str:
    """Return the output of a Slurm command."""
    found = shutil.which(command[0], path=env["PATH"])
    assert found
    return subprocess.run(
        [found, *command[1:]], env={**os.environ, **env}, capture_output=True, text=True, check=False
    ).stdout


def _wait_until_idle(env: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        if "idle" in ask(env, "sinfo"):
            return
        time.sleep(0.5)
    raise AssertionError((folder / "controller.log").read_text() + (folder / "daemon.log").read_text())


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
