"""Init methods, backends and interfaces, and configs that are rejected before a rank waits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.distributed.launch_env import LaunchInfo, detect_launch
from fulgurite.distributed.rendezvous import DirectoryStore, Rendezvous
from fulgurite.engine.build import build
from fulgurite.validation.validate import validate
from tests.conftest import SMALL, ComposeSmall
from tests.support.cli import only_run, read_json, run_cli
from tests.support.launcher_env import TWO, free_port, run_two

SLOW = partial(pytest.param, marks=pytest.mark.slow)
NOTE = (
    "extras.allowed_targets=[tests]",
    "+callbacks.note._target_=tests.fulgurite.distributed.test_process_group.NoteGroup",
)


class NoteGroup(Callback):
    """Write the properties of the process group, for the tests below."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one file per rank."""
        names = sorted(name for name in os.environ if name.startswith(("GLOO_", "NCCL_")))
        facts = [torch.distributed.get_backend(), *(f"{name}={os.environ[name]}" for name in names)]
        Path(trainer.default_root_dir, f"group{trainer.global_rank}.txt").write_text("\n".join(facts))


def place(scheme: str, folder: Path) -> str:
    """Return a new init method of a scheme."""
    return {"env": "env://", "tcp": f"tcp://127.0.0.1:{free_port()}", "file": f"file://{folder}/meet"}[scheme]


@pytest.mark.parametrize(("launcher", "scheme"), [("torchrun", "tcp"), SLOW("torchrun", "file"), SLOW("srun", "file")])
def test_ranks_of_a_launcher_use_the_init_method(launcher: str, scheme: str, tmp_path: Path) -> None:
    overrides = (*TWO, *NOTE, f"distributed.init_method={place(scheme, tmp_path)}", f"paths.log_dir={tmp_path}/logs")
    both = run_two(launcher, tmp_path, *overrides)
    assert [one.returncode for one in both] == [0, 0], both[0].stderr + both[1].stderr
    run = only_run(tmp_path / "logs")
    assert {(run / f"group{rank}.txt").read_text() for rank in (0, 1)} == {"gloo"}
    assert f"started by {launcher}, backend gloo (the default for cpu), init method {scheme}://" in both[0].stderr
    assert not list(tmp_path.glob("meet*"))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "scheme"), [("popen", "file"), ("spawn", "tcp"), ("fork", "file")])
def test_ranks_that_rank_zero_starts_use_the_init_method(method: str, scheme: str, tmp_path: Path) -> None:
    more = (f"trainer.strategy.start_method={method}", f"distributed.init_method={place(scheme, tmp_path)}")
    asked = "trainer.strategy.process_group_backend=gloo"
    done = run_cli("train", *TWO, *NOTE, *more, asked, logs=tmp_path / "logs")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "logs")
    assert {(run / f"group{rank}.txt").read_text() for rank in (0, 1)} == {"gloo"}
    assert read_json(run / "run.json")["ranks"] == 2
    assert not list(tmp_path.glob("meet*"))


@pytest.mark.slow
def test_interfaces_and_variables_are_set_for_one_job_and_restored_after_it(tmp_path: Path) -> None:
    overrides = (
        "distributed.interfaces=[lo]",
        "++distributed.comm_env.NCCL_DEBUG=INFO,null",
        "seed=1",
        f"paths.log_dir={tmp_path}/logs",
    )
    both = run_two("by_hand", tmp_path, "-m", *TWO, *NOTE, *overrides)
    assert [one.returncode for one in both] == [0, 0], both[0].stderr + both[1].stderr
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    notes = [[(sweep / job / f"group{rank}.txt").read_text().split("\n") for rank in (0, 1)] for job in "01"]
    interfaces = ["GLOO_SOCKET_IFNAME=lo", "NCCL_SOCKET_IFNAME==lo"]
    assert notes == [[["gloo", interfaces[0], "NCCL_DEBUG=INFO", interfaces[1]]] * 2, [["gloo", *interfaces]] * 2]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("distributed.init_method=tcp://127.0.0.1", r"lacks a host or a port from 1 to 65535. Set tcp://"),
        ("distributed.init_method=tcp://127.0.0.1:99999", r"has no port from 1 to 65535. Set env://, tcp://"),
        ("distributed.init_method=file://meet/here", r"has no absolute path. Set file:///"),
        ("distributed.init_method=file:///tmp", r"is a folder. Name a file in it"),
        ("distributed.init_method=mpi://", r"is not a valid rendezvous URL. Set env://, tcp://"),
        ("distributed.interfaces=[lo,nope0]", r"\S+ has no interface 'nope0'.*lo"),
        (
            "+distributed.comm_env.LD_PRELOAD=x",
            r"is not a variable of a communication library .*GLOO_, NCCL_.*. Set it in",
        ),
    ],
)
def test_a_wrong_process_group_key_is_one_finding(override: str, line: str, small: ComposeSmall) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{override.lstrip('+').split('=')[0].replace('.', '[.]')}.*: {line}"
    ) as error:
        validate(small(override))
    assert len(error.value.findings) == 1


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("trainer.strategy.process_group_backend=ucc",), r"is built without ucc, it has gloo. Set .*=gloo"),
        (("trainer.strategy.process_group_backend=mpi",), r"is built without mpi, it has gloo. Set .*=gloo"),
        (("trainer.strategy.process_group_backend=glo",), r"is not a backend.*[Dd]id you mean 'gloo'\?"),
        (("trainer.num_nodes=2",), r"trainer.num_nodes=2: no launcher started the run on several nodes. Start it"),
        (
            ("distributed.init_method=file:///proc/meet",),
            r"cannot be created \(.*\)[.] Name a file on a shared filesystem",
        ),
    ],
)
def test_what_this_build_or_machine_does_not_support_is_one_line(
    overrides: tuple[str, ...], line: str, small: ComposeSmall
) -> None:
    with pytest.raises(UserError, match=line) as error:
        build(small("trainer=ddp_sim", *overrides))
    assert len(str(error.value).splitlines()) == 1


def test_a_backend_for_gpus_is_refused_for_processes_on_the_cpu(small: ComposeSmall) -> None:
    rule = "is built without nccl" if not torch.distributed.is_nccl_available() else "supports cuda tensors only"
    with pytest.raises(UserError, match=f"process_group_backend=nccl: .*{rule}.*[.] Set .*process_group_backend=gloo"):
        build(small("trainer=ddp_sim", "trainer.strategy.process_group_backend=nccl"))


def refused(both: list[subprocess.CompletedProcess[str]]) -> str:
    """Check that all ranks exited with 2 and without a traceback, and return the one error line."""
    assert [one.returncode for one in both] == [2, 2], both[0].stderr + both[1].stderr
    said = "".join(one.stderr for one in both)
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if "error" in line.lower()]
    return line


@pytest.mark.parametrize("launcher", ["torchrun", SLOW("by_hand")])
def test_ranks_with_different_overrides_are_refused_by_the_first_key_before_a_run_exists(
    launcher: str, tmp_path: Path
) -> None:
    of_rank = {0: ("seed=1",), 1: ("seed=2", "+tags.other=true")}
    both = run_two(launcher, tmp_path, *TWO, f"paths.log_dir={tmp_path}/logs", of_rank=of_rank)
    rule = "(1 more keys differ). Pass the same overrides and files to all ranks."
    assert refused(both) in {f"error: rank 1: {key} {rule}" for key in ("seed=2, but rank 0 has seed=1",)} | {
        f"error: rank 1: tags.other=True, but rank 0 has tags.other=(missing) {rule}"
    }
    assert not list((tmp_path / "logs").rglob("run.json"))
    assert not (tmp_path / "logs/train").exists()


@pytest.mark.parametrize("launcher", ["torchrun", SLOW("srun")])
def test_a_trainer_with_another_number_of_processes_names_the_values_to_set(launcher: str, tmp_path: Path) -> None:
    both = run_two(launcher, tmp_path, *SMALL, f"paths.log_dir={tmp_path}/logs")
    line = refused(both)
    assert f"trainer.devices=1 trainer.num_nodes=1: {launcher} started 2 processes, 2 on this node" in line
    assert "Set trainer.devices=2 trainer.num_nodes=1." in line
    record = read_json(only_run(tmp_path / "logs") / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)


def test_a_typo_under_a_launcher_is_one_line_and_no_run(tmp_path: Path) -> None:
    both = run_two("torchrun", tmp_path, *TWO, "+data.batchsize=3", f"paths.log_dir={tmp_path}/logs")
    assert "data.batchsize" in refused(both)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("hydra/sweeper=search", "each process would run its own search. Start it without torchrun: each job"),
        ("hydra/launcher=local", "each process would start all jobs. Start it without torchrun: each job"),
    ],
)
def test_a_sweep_that_each_rank_would_run_separately_is_refused(override: str, line: str, tmp_path: Path) -> None:
    sweep = ("-m", *TWO, override, "model.optimizer.lr=choice(0.1,0.2)", f"paths.log_dir={tmp_path}/logs")
    part = override.partition("=")[0]
    assert refused(run_two("torchrun", tmp_path, *sweep)).startswith(f"error: {part}: under torchrun {line}")
    assert not (tmp_path / "logs").exists()


def test_ranks_that_do_not_share_a_folder_are_reported_within_the_timeout(tmp_path: Path) -> None:
    of_rank = {rank: (f"paths.log_dir={tmp_path}/logs{rank}", "distributed.rank_timeout_seconds=2") for rank in (0, 1)}
    both = run_two("srun", tmp_path, *TWO, of_rank=of_rank)
    assert [one.returncode for one in both] == [2, 2]
    assert "error: rank 1 of 2 did not join within 2 s (distributed.rank_timeout_seconds)" in both[0].stderr
    assert f"on a shared filesystem (looked in {tmp_path}/logs0/.rendezvous/" in both[0].stderr
    assert not list(tmp_path.glob("logs*/train"))


@pytest.mark.parametrize("scheme", ["env", SLOW("tcp")])
def test_a_used_port_exits_all_ranks_with_one_line(scheme: str, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        url = "env://" if scheme == "env" else f"tcp://127.0.0.1:{port}"
        overrides = (f"distributed.init_method={url}", f"paths.log_dir={tmp_path}/logs")
        line = refused(run_two("by_hand", tmp_path, *TWO, *overrides, port=str(port)))
    asked = f"MASTER_PORT={port}" if scheme == "env" else f"distributed.init_method={url}"
    assert f"{asked}: another process listens on this port. Set another port" in line
    assert read_json(only_run(tmp_path / "logs") / "run.json")["exit_code"] == 2


@pytest.mark.parametrize(("rank", "note"), [(0, "1-begin-lead"), (1, "1-begin-1")])
def test_a_second_launch_with_the_same_rendezvous_is_refused(rank: int, note: str, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.set("1-begin-lead", earlier := "left by an earlier start")
    meeting = Rendezvous(LaunchInfo("mpiexec", rank, 2, None, None, None, "key"), store, 20)
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(meeting.exchange, "begin", "ours", lambda said: said)
        while (said := store.get(note) or earlier) == earlier:
            time.sleep(0.01)
        store.set(note, json.dumps({**json.loads(said), "nonce": "other"}) if rank else "other")
        with pytest.raises(UserError, match=f"{tmp_path}: another launch of the same command .*MASTER_PORT"):
            ours.result()


def test_the_ranks_of_one_mpiexec_share_a_key_on_all_machines() -> None:
    place = {"PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}
    environments = [
        {**place, "PMI_RANK": str(rank), "PMI_ID": str(rank), "MPI_LOCALRANKID": str(rank % 2)} for rank in range(4)
    ]
    assert len({detect_launch(env).key for env in environments}) == 1  # type: ignore[union-attr]
    other = detect_launch({**environments[0], "MASTER_PORT": "29501"})
    assert other is not None
    assert other.key != detect_launch(environments[0]).key  # type: ignore[union-attr]


def test_more_processes_than_cores_are_one_warning(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    build(small("trainer=ddp_sim"))
    assert "not faster" not in caplog.text
    build(small("trainer=ddp_sim", "trainer.devices=4"))
    assert "4 processes on 2 cores are not faster than trainer.devices=2" in caplog.text


def test_the_rank_of_a_process_on_its_node_is_not_taken_for_the_rank_of_the_node() -> None:
    names = {"RANK": "1", "SIZE": "2", "LOCAL_RANK": "1", "LOCAL_SIZE": "2", "NODE_RANK": "1"}  # as of Open MPI
    launch = detect_launch({f"OMPI_COMM_WORLD_{name}": value for name, value in names.items()})
    assert launch is not None
    assert (launch.rank, launch.local_rank, launch.node_rank) == (1, 1, None)
