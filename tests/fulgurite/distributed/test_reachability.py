"""Unreachable ranks are reported in one line, at once or after a bounded wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.distributed.network_interfaces import require_gloo_interfaces
from fulgurite.distributed.reachability import require_local_master_address, wait_for_master
from fulgurite.distributed.supervision.failures import write_failure
from fulgurite.distributed.supervision.liveness import diagnose_missing_ranks, registered_pid
from tests.support.cli import only_run, read_json, run_cli
from tests.support.faults import processes_with
from tests.support.launcher_env import free_port
from tests.support.run_if import RunIf

needs_proc = RunIf(path="/proc/self/stat")


def test_a_missing_interface_is_reported_with_the_existing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo,nope0")
    with pytest.raises(UserError, match=r"GLOO_SOCKET_IFNAME=lo,nope0: .* has no interface 'nope0'. It has lo"):
        require_gloo_interfaces()
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    require_gloo_interfaces()


def test_an_address_of_another_machine_is_refused_where_rank_zero_starts_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for address in ("192.0.2.1", "no-such-host.invalid"):
        monkeypatch.setenv("MASTER_ADDR", address)
        with pytest.raises(UserError, match=f"MASTER_ADDR={address}: is not an address of this machine"):
            require_local_master_address()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    require_local_master_address()


def test_a_master_that_does_not_answer_is_waited_for_until_the_timeout() -> None:
    port = int(free_port())
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"{port}: rank 0 did not answer within 0.5 s \(Connection refused\)"):
        wait_for_master("127.0.0.1", port, 0.5)
    assert 0.5 <= time.monotonic() - start < 30  # a time-out against hanging
    with socket.create_server(("127.0.0.1", port)):
        wait_for_master("127.0.0.1", port, 0.5)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that stands for rank 1."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@needs_proc
def test_an_externally_launched_rank_is_named_when_it_has_exited(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "1.pid").write_text(f"{socket.gethostname()} {sleeper.pid}")
    late = diagnose_missing_ranks(tmp_path, 3, 8, report_seconds=0)
    assert str(late).startswith(f"rank 1 ({socket.gethostname()}, pid {sleeper.pid}), 2 did not respond within 8 s")
    sleeper.kill()
    with registered_pid(tmp_path):  # rank 0 itself
        assert (tmp_path / "ranks" / "0.pid").read_text() == f"{socket.gethostname()} {os.getpid()}"
        gone = diagnose_missing_ranks(tmp_path, 3, 8)
    assert str(gone).startswith(f"rank 1 (pid {sleeper.pid}) exited without a reason")
    monkeypatch.setenv("RANK", "2")
    write_failure(tmp_path, "data/x.bin: is not there", 2, secondary=False)
    monkeypatch.delenv("RANK")
    failed = diagnose_missing_ranks(tmp_path, 3, 8)
    assert (str(failed), failed.exit_code) == ("rank 2 failed: data/x.bin: is not there (traceback in the log)", 2)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_run_on_a_missing_interface_exits_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope0")
    done = run_cli("train", "trainer=ddp_sim", "extras.print_config=false", logs=tmp_path)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
    assert "has no interface 'nope0'" in line
    assert read_json(only_run(tmp_path) / "run.json")["status"] == "failed"
    assert processes_with(str(tmp_path)) == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_rank_whose_torchrun_has_exited_exits_with_2_within_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    elastic = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**ranks, **elastic, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    done = run_cli("train", "trainer=ddp_sim", "distributed.rank_timeout_seconds=5", logs=tmp_path, timeout=100)
    assert done.returncode == 2, done.stderr
    assert "rank 0 did not answer within 5 s (Connection refused)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("train/runs/*"))
