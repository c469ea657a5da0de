"""A rank that is killed, stopped or fails terminates the run on all ranks, and is named."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fulgurite.compat.hydra import unchecked
from fulgurite.core.errors import UserError
from fulgurite.core.proc import is_stopped
from fulgurite.distributed.reachability import require_free_master_port
from fulgurite.distributed.supervision import watcher
from fulgurite.distributed.supervision.failures import (
    clear_failures,
    diagnose_failure,
    is_peer_loss,
    read_failures,
    write_failure,
)
from fulgurite.distributed.supervision.launcher import install_supervision
from tests.conftest import ComposeSmall
from tests.support.cli import read_json
from tests.support.project import ROOT
from tests.support.run_if import RunIf


@pytest.fixture
def sleepers() -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Yield two processes that stand for ranks 1 and 2."""
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    processes = {number: subprocess.Popen(command) for number in (1, 2)}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and wait until it is."""
    process.send_signal(signal.SIGSTOP)
    while not is_stopped(process.pid):
        time.sleep(0.01)


@RunIf(posix=True)
def test_the_killed_rank_is_named_and_not_its_peers(
    sleepers: dict[int, subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    write_failure(tmp_path, "RuntimeError: Connection closed by peer", 1, secondary=True)
    sleepers[2].kill()
    sleepers[2].wait()
    failed = diagnose_failure(sleepers, tmp_path, 60)
    assert str(failed).startswith(f"rank 2 (pid {sleepers[2].pid}) was killed by SIGKILL")
    assert failed is not None
    assert failed.exit_code == 1


@RunIf(posix=True)
def test_a_rank_that_gloo_aborted_is_named_with_the_usual_cause(
    sleepers: dict[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    sleepers[2].send_signal(signal.SIGABRT)
    sleepers[2].wait()
    failed = diagnose_failure(sleepers, tmp_path, 60)
    name = f"rank 2 (pid {sleepers[2].pid}) was killed by SIGABRT"
    assert str(failed).startswith(f"{name}. Did the ranks run unequal numbers of batches, or ")


@RunIf(posix=True)
def test_a_rank_that_failed_gives_the_run_its_reason_and_exit_code(
    sleepers: dict[int, subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    write_failure(tmp_path, "data/x.bin: is not there", 2, secondary=False)
    failed = diagnose_failure(sleepers, tmp_path, 60)
    assert failed is not None
    assert (str(failed), failed.exit_code) == ("rank 2 failed: data/x.bin: is not there (traceback in the log)", 2)
    clear_failures(tmp_path)
    assert read_failures(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc for the state of a process")
def test_a_stopped_rank_is_distinguished_from_one_that_does_not_respond(
    sleepers: dict[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    silent = diagnose_failure(sleepers, tmp_path, 8, report_seconds=0.1)
    assert "did not respond within 8 s. Raise harden(rank_timeout_seconds=...)." in str(silent)
    assert str(sleepers[1].pid) in str(silent)
    stop(sleepers[2])
    failed = diagnose_failure(sleepers, tmp_path, 8)
    assert str(failed) == f"rank 2 (pid {sleepers[2].pid}) is stopped (SIGSTOP) and does not respond"


@RunIf(posix=True)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc for the state of a process")
def test_terminating_the_other_ranks_also_kills_a_stopped_one(
    sleepers: dict[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    stop(sleepers[1])
    watcher.RankWatcher(sleepers, tmp_path, 60).terminate_others(0.1)
    assert [process.returncode for process in sleepers.values()] == [-9, -9]


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[/x/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.1.1]:28912", True),
        ("Application timeout caused pair closure", True),
        ("Timed out waiting 8000ms for recv operation to complete", True),
        ("DataLoader timed out after 120 seconds", False),
        ("DataLoader worker (pid 4) is killed by signal: Killed.", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_only_communication_errors_are_peer_losses(message: str, lost: bool) -> None:
    assert is_peer_loss(RuntimeError(message)) is lost
    assert is_peer_loss(torch.distributed.DistBackendError(message))
    assert not is_peer_loss(ValueError(message))


HANGING = """
import subprocess, sys, time
from pathlib import Path
from fulgurite.distributed.supervision import watcher
watcher.POLL_SECONDS, watcher.GRACE_SECONDS = 0.05, 0.3
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
watcher.RankWatcher({1: child}, Path(sys.argv[1]), 60).start()
child.kill()
time.sleep(60)
"""


@RunIf(posix=True)
@pytest.mark.parametrize(("status", "code"), [("running", 1), ("done", 0)])
def test_a_rank_zero_that_hangs_on_a_dead_rank_is_terminated_and_its_record_closed(
    status: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": status, "seed": 42}))
    program = HANGING if code else HANGING.replace("time.sleep(60)\n", "time.sleep(1)\n")
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, timeout=40, check=False)
    assert done.returncode == code
    record = read_json(tmp_path / "run.json")
    if status == "running":
        assert (record["status"], record["exit_code"], record["seed"]) == ("failed", 1, 42)
        assert "was killed by SIGKILL" in record["reason"]
    else:
        assert record == {"status": "done", "seed": 42}


PARENT = """
import subprocess, sys, time
rank = (
    f"import os, time; from fulgurite.core.proc import {sys.argv[1]} as follow; "
    "follow(os.getppid()); print(0, flush=True); time.sleep(60)"
)
child = subprocess.Popen([sys.executable, "-c", rank], stdout=subprocess.PIPE)
assert child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the orphan in /proc")
@pytest.mark.parametrize("follow", ["exit_with_parent", "terminate_with_parent"])
def test_a_child_process_exits_when_its_parent_is_killed(follow: str) -> None:
    command = [sys.executable, "-c", PARENT, follow]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        rank = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 20
    while is_running(rank) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(rank)


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_used_port_is_refused_before_a_rank_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(UserError, match=f"MASTER_PORT={port}: another process listens on this port"):
            require_free_master_port()
    require_free_master_port()
    monkeypatch.setenv("MASTER_PORT", "no")
    with pytest.raises(UserError, match=r"MASTER_PORT=no: is not a valid port\. Set a number from 1 to 65535"):
        require_free_master_port()


def test_the_timeout_of_the_process_group_is_the_configured_one(small: ComposeSmall) -> None:
    from hydra.utils import instantiate

    trainer = instantiate(small("trainer=ddp_sim", "trainer.strategy=ddp").trainer, logger=False, **unchecked())
    with pytest.raises(UserError, match=r"distributed.rank_timeout_seconds=0: is not above 0"):
        install_supervision(trainer, Path(), 0.0)
    install_supervision(trainer, Path(), 8.0)
    assert trainer.strategy._timeout.total_seconds() == 8
    install_supervision(trainer, Path(), 5.0)  # now one that was given
    assert trainer.strategy._timeout.total_seconds() == trainer.strategy.launcher.timeout == 8
