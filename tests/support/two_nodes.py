"""Two nodes with two links on one machine: network namespaces joined by pairs of virtual interfaces.

    node0  ethA 10.77.1.1 ------- 10.77.1.2 ethA  node1
           ethB 10.77.2.1 ------- 10.77.2.2 ethB

Each node has its own loopback, host name and `/etc/hosts`. Needs root and iproute2; `why_not` returns what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.project import ROOT

LINKS = ("ethA", "ethB")
# runs a command under a host name of its own, with what the node sees in the place of some paths
ENTER = (
    'hostname "$1"; n=$2; shift 2; '
    'while [ "$n" -gt 0 ]; do mount --bind "$1" "$2"; shift 2; n=$((n-1)); done; exec "$@"'
)


def why_not() -> str | None:
    """Return why network namespaces cannot be created here; None if they can."""
    if missing := [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} on PATH (iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    name = f"fulgurite-try-{uuid4().hex[:8]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    _run("ip", "netns", "delete", name)
    return None


class Node:
    """One of the two nodes.

    Args:
        number: 0 or 1.
        namespace: Name of its network namespace.
        folder: Gets its `/etc/hosts`.

    Attributes:
        host: Its host name.
        private: Paths that this node sees a folder or file of its own at: path to what lies there.
    """

    def __init__(self, number: int, namespace: str, folder: Path) -> None:
        self.number, self.namespace, self.host = number, namespace, f"node{number}"
        hosts = folder / f"hosts-{number}"
        # as most images have it: the node's own name is the loopback
        hosts.write_text(f"127.0.0.1 localhost {self.host}\n")
        self.private = {Path("/etc/hosts"): hosts}
        self.processes: list[subprocess.Popen[str]] = []

    def address(self, link: str = "ethA") -> str:
        """Return the node's address on a link."""
        return f"10.77.{LINKS.index(link) + 1}.{self.number + 1}"

    def start(self, *command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.Popen[str]:
        """Start a command on this node, with stdout and stderr in one pipe.

        Args:
            command: Words; the process that is returned is the command's own.
            env: Added to the environment.
            cwd: Folder the command is started in.
        """
        places = [str(word) for path, own in self.private.items() for word in (own, path)]
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-ec", ENTER, "sh"]
        process = subprocess.Popen(
            [*enter, self.host, str(len(self.private)), *places, *command],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def pids(self) -> list[int]:
        """Return the processes that run on this node now."""
        return [int(pid) for pid in _run("ip", "netns", "pids", self.namespace).split()]

    def bytes_sent(self, link: str) -> int:
        """Return how many bytes have left this node on a link."""
        [shown] = json.loads(_run("ip", "-n", self.namespace, "-s", "-j", "link", "show", "dev", link))
        sent: int = shown["stats64"]["tx"]["bytes"]
        return sent

    def cut(self, link: str) -> None:
        """Take a link down at this node's end."""
        _run("ip", "-n", self.namespace, "link", "set", link, "down")

    def slow_down(self, link: str, rate: str) -> None:
        """Let a link carry no more than `rate` (`tc`'s notation, `40mbit`) out of this node."""
        words = ("root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms")
        _run("tc", "-n", self.namespace, "qdisc", "replace", "dev", link, *words)

    def terminate_all(self) -> None:
        """Kill all processes on this node."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Create two nodes with two links, and delete them with all their processes.

    Args:
        folder: For files of the nodes.
    """
    mark = uuid4().hex[:8]
    names = [f"fulgurite-{mark}-{number}" for number in range(2)]
    nodes: list[Node] = []
    try:
        for number, name in enumerate(names):
            _run("ip", "netns", "add", name)
            nodes.append(Node(number, name, folder))
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for link in LINKS:
            ends = ("link", "add", link, "netns", names[0], "type", "veth", "peer", "name", link, "netns", names[1])
            _run("ip", *ends)
            for node in nodes:
                _run("ip", "-n", node.namespace, "address", "add", f"{node.address(link)}/24", "dev", link)
                _run("ip", "-n", node.namespace, "link", "set", link, "up")
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.terminate_all()
            _run("ip", "netns", "delete", node.namespace)


def torchrun(nodes: Sequence[Node], *words: str, per_node: int = 1, port: int = 29400) -> list[list[str]]:
    """Return the command that starts each node's share of `words` (a script and its words), meeting on ethA."""
    common = ["--nnodes", str(len(nodes)), "--nproc-per-node", str(per_node)]
    common += ["--master-addr", nodes[0].address(), "--master-port", str(port)]
    return [
        [sys.executable, "-m", "torch.distributed.run", *common, "--node-rank", str(node.number), *words]
        for node in nodes
    ]


def end(process: subprocess.Popen[Any], timeout: float) -> tuple[int, str]:
    """Wait for a process and return its exit code and output."""
    said, _ = process.communicate(timeout=timeout)
    return process.returncode, said


def wait_gone(nodes: Sequence[Node], timeout: float = 15) -> list[int]:
    """Return the processes still on the nodes after at most `timeout` seconds; none is left when all is well."""
    until = time.monotonic() + timeout
    while (left := [pid for node in nodes for pid in node.pids()]) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
