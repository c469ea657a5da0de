"""The doctor on one machine: what it finds, how it ends, and what it says of input that cannot be used."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.doctor.cli import main, read_words
from fulgurite.doctor.cluster.facts import FINDING, FINE, LEFT_OUT, Check, RankInfo, compare
from fulgurite.doctor.cluster.launcher_placement import first_host, read_place
from fulgurite.doctor.cluster.placement import Place
from tests.support.multirank import Doctors, each_rank, free_port
from tests.support.project import ROOT


def facts(rank: int, **other: object) -> RankInfo:
    known: dict[str, object] = {
        "rank": rank, "host": f"n{rank}", "machine": f"m{rank}", "pid": 100, "launcher": "srun", "local_rank": 0,
        "device": "cpu", "interfaces": ["eth0"], "addresses": [f"10.0.0.{rank + 1}"], "leads_to_rank_0": "eth0",
        "versions": {"torch": "2.13.0"}, "commit": "abc", "config": "f" * 64, "free": 2**34,
    }  # fmt: skip
    return RankInfo(**{**known, **other})  # type: ignore[arg-type]


def test_ranks_that_agree_are_fine() -> None:
    assert {check.state for check in compare([facts(0), facts(1)], 1)} == {FINE}


@pytest.mark.parametrize(
    ("other", "check"),
    [
        (
            {"versions": {"torch": "2.12.0"}},
            "version of torch: differs: 2.13.0 on rank 0, 2; 2.12.0 on rank 1; must be the same on all ranks",
        ),
        (
            {"commit": "abc+"},
            "commit of the code: differs: abc on rank 0, 2; abc+ on rank 1; must be the same on all ranks",
        ),
        (
            {"config": "0" * 64},
            "config: differs: ffffffffffff on rank 0, 2; 000000000000 on rank 1; must be the same on all",
        ),
        ({"free": 2**29}, "disk: 0.5 GiB free on rank 1 (n1), less than 1; make room"),
        (
            {"interfaces": ["lo"], "addresses": ["127.0.0.1"], "leads_to_rank_0": "ib0"},
            "interfaces: lo (127.0.0.1) on rank 1 (n1): other machines cannot reach a loopback",
        ),
    ],
)
def test_a_rank_that_differs_is_named(other: dict[str, object], check: str) -> None:
    found = [one for one in compare([facts(0), facts(1, **other), facts(2)], 1) if one.state == FINDING]
    assert len(found) == 1
    assert f"{found[0].name}: {found[0].detail}".startswith(check)


def test_a_loopback_is_right_on_one_machine() -> None:
    alone = [facts(rank, machine="m", interfaces=["lo"], addresses=["127.0.0.1"]) for rank in range(2)]
    assert Check("interfaces", FINE, "lo") in compare(alone, 1)


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1234"}
AGENT = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "gpu[03-05],x",
    "SLURM_JOB_ID": "74321",
    "SLURM_STEP_ID": "0",
}


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, Place()),
        (
            {**TORCHRUN, **AGENT},
            Place(1, 4, 1, "torchrun", "a", 1234, agents=True, attempt=2),
        ),
        (TORCHRUN, Place(1, 4, 1, "environment", "a", 1234)),
        (SRUN, Place(3, 4, 1, "srun", "gpu03", 19321)),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Place()),
        # a batch script has them too, but is one process, which would wait for the others for ever
        ({key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}, Place()),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
            Place(1, 2, 1, "mpiexec", "127.0.0.1", 29500),
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "MASTER_ADDR": "b"},
            Place(0, 2, 0, "mpiexec", "b", 29500),
        ),
    ],
)  # fmt: skip
def test_a_rank_reads_its_place_from_what_the_launcher_sets(env: dict[str, str], place: Place) -> None:
    assert read_place(env) == place


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({**TORCHRUN, "RANK": "4"}, "RANK=4: with WORLD_SIZE=4 ranks go from 0 to 3"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK=-1: is no whole number from 0 up"),
        ({**TORCHRUN, "MASTER_PORT": "99999"}, "MASTER_PORT=99999: is no port"),
        ({"RANK": "1"}, "RANK=1: WORLD_SIZE is not set; set both"),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2"},
            "MASTER_ADDR: is not set, and mpiexec does not tell where rank 0 is",
        ),
    ],
)
def test_variables_that_contradict_themselves_are_one_line(env: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as told:
        read_place(env)
    assert str(told.value).startswith(line)


def test_the_first_host_of_slurms_notation_is_found() -> None:
    assert [first_host(nodes) for nodes in ("a,b", "gpu[03-05,7],cpu1", "n[1,3]", "one")] == ["a", "gpu03", "n1", "one"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--benhc"], "unrecognized arguments: --benhc; --help lists what there is"),
        (["--bench", "--collectives", "all_reduc"], "--collectives all_reduc: choose from all_reduce, "),
        (["--timeout", "0"], "--timeout 0: is not a number from 1 up"),
        (["--bench", "--max-bytes", "many"], "--max-bytes many: is no number of bytes"),
        (["--bench", "--max-bytes", "4"], "--max-bytes 4: messages have 8 bytes or more"),
        (["--plot", "x.png"], "--plot: has nothing to go by without --bench; add it"),
        (["--bench", "--plot", "x.pdf"], "--plot x.pdf: draws .png and .svg"),
        (["--json", "no/such/x.json"], f"--json no/such/x.json: there is no folder {Path.cwd()}/no/such"),
        (["--bench", "--threshold", "none.yaml"], "--threshold none.yaml: cannot be read"),
    ],
)
def test_words_that_cannot_be_used_are_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}")
    assert said.count("\n") == 1


def test_help_and_wrong_words_import_no_torch() -> None:
    code = "import sys; from fulgurite.doctor import cli; cli.main(['--benhc']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_what_is_given_reaches_the_bench() -> None:
    asked = read_words(["--bench", "--max-bytes", "1MiB", "experiment=example", "--calls", "3", "seed=1"])
    assert (asked.max_bytes, asked.calls, asked.overrides) == (2**20, 3, ["experiment=example", "seed=1"])


def test_two_ranks_are_found_right_and_measured(tmp_path: Path) -> None:
    (tmp_path / "least.yaml").write_text("all_reduce: {8: 1000}\n")
    codes, said = Doctors(
        tmp_path, each_rank(2), "--bench", "--max-bytes", "64KiB", "--factor", "64", "--calls", "3", "--warmup", "1",
        "--link-bytes", "64KiB", "--no-drills", "--timeout", "30", "--folder", str(tmp_path / "shared"), "seed=7",
        "--threshold", f"{tmp_path}/least.yaml", "--json", f"{tmp_path}/x.json", "--markdown", f"{tmp_path}/x.md",
    ).end()  # fmt: skip
    assert codes == [1, 1], said
    found = json.loads((tmp_path / "x.json").read_text())
    states = {check["name"]: check["state"] for check in found["checks"] if check["name"] != "slow"}
    assert states.pop("threshold") == FINDING
    assert set(states.values()) == {FINE}, found["checks"]
    assert [(one["rank"], one["launcher"], one["local_rank"]) for one in found["facts"]] == [
        (0, "environment", 0),
        (1, "environment", 1),
    ]
    assert [row["num_bytes"] for row in found["measured"]][:4] == [8, 512, 32768, 65536]
    assert len(found["measured"]) == 9 * 4
    assert all(row["calls"] == 3 and row["wrong"] == 0 and 0 < row["median"] <= row["p95"] for row in found["measured"])
    assert [(link["source"], link["target"]) for link in found["links"]] == [(0, 1), (1, 0)]
    assert "all_reduce of 64 KiB: " in found["findings"][-1]
    assert found["findings"][-1].endswith("GB/s on the bus, below 1000")
    assert "| all_reduce | 64 KiB | 3 |" in (tmp_path / "x.md").read_text()
    assert "2 ranks on 1 machine, started by environment, backend gloo" in said[0]
    assert said[1] == ""  # rank 0 speaks for all
    assert list((tmp_path / "shared").iterdir()) == []


def test_alone_it_says_what_it_left_out(tmp_path: Path) -> None:
    [code], [said] = Doctors(tmp_path, [{}], "--bench", "--json", f"{tmp_path}/x.json").end()
    assert code == 0, said
    checks = json.loads((tmp_path / "x.json").read_text())["checks"]
    assert checks[-1] == {
        "name": "bench",
        "state": LEFT_OUT,
        "detail": "needs two ranks or more; start it with torchrun --nproc-per-node 2",
    }
    assert "nothing was found" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--backend", "nccl"], "--backend=nccl: torch "),
        (["--interface", "nope0"], "--interface=nope0: "),
        (["model.net.lin1_sise=3"], "command line: model.net.lin1_sise=3: there is no such key. Did you mean "),
    ],
)
def test_input_that_one_rank_cannot_use_ends_both_with_2_and_one_line(
    words: list[str], line: str, tmp_path: Path
) -> None:
    # only rank 1 is given it; rank 0, which speaks for the machine, tells it
    codes, said = Doctors(tmp_path, each_rank(2), ["--timeout", "20"], ["--timeout", "20", *words]).end()
    assert codes == [2, 2], said
    assert said[0].startswith(f"error: {line}")
    assert said[0].count("\n") == 1


def test_world_sizes_that_disagree_end_both_with_2(tmp_path: Path) -> None:
    envs = each_rank(2)
    envs[1]["WORLD_SIZE"] = "3"
    codes, said = Doctors(tmp_path, envs, "--timeout", "20").end()
    assert codes == [2, 2], said
    assert "WORLD_SIZE=2 on rank 0 but 3 on rank 1: must be one number" in said[0]


def test_a_config_that_differs_is_found(tmp_path: Path) -> None:
    quick = ["--timeout", "20", "--no-drills"]
    codes, said = Doctors(tmp_path, each_rank(2), quick, [*quick, "seed=1"]).end()
    assert codes == [1, 1], said
    assert re.search(r"finding +config", said[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_never_comes_is_named_within_the_timeout(rank: int, tmp_path: Path) -> None:
    [env] = [env for env in each_rank(2) if env["RANK"] != str(rank)]
    [code], [said] = Doctors(tmp_path, [{**env, "LOCAL_RANK": "0"}], "--timeout", "2").end(20)
    assert code == 1, said
    told = {0: f"MASTER_ADDR=127.0.0.1 MASTER_PORT={env['MASTER_PORT']}: rank 1 ", 1: "rank 1 did not come within 2 s"}
    assert said.splitlines()[-1].startswith(f"error: {told[rank]}")


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", port := free_port()))
        taken.listen(1)
        [code], [said] = Doctors(tmp_path, each_rank(2, port)[:1], "--timeout", "5").end(20)
    assert (code, said) == (2, f"error: MASTER_PORT={port}: another process listens there; name another port\n")


@pytest.mark.slow
def test_a_rank_that_is_killed_in_the_bench_is_named(tmp_path: Path) -> None:
    endless = ["--bench", "--no-drills", "--no-links", "--calls", "1000000", "--seconds", "300", "--timeout", "6"]
    doctors = Doctors(tmp_path, each_rank(3), *endless, "--collectives", "all_reduce", "--json", f"{tmp_path}/x.json")
    pid = doctors.processes[1].pid
    assert pid is not None
    while _waits(pid) < 10_000:  # in the bench it waits for the others at every call, before it hardly does
        time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    codes, said = doctors.end(40)
    assert codes == [1, -9, 1], said
    told = json.loads((tmp_path / "x.json").read_text())["findings"]
    assert told[0].startswith("all_reduce of 8 B: the ranks lost one another")
    assert f"(pid {pid}) did not answer within 6 s" in told[1]


def _waits(pid: int) -> int:
    """Return how often a process has given the processor away by itself."""
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.slow
def test_under_torchrun_late_ranks_and_other_shapes_are_named(tmp_path: Path) -> None:
    words = ["--nproc-per-node", "3", "--standalone", "-m", "fulgurite", "doctor", "--json", f"{tmp_path}/x.json"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    states = {check["name"]: check["state"] for check in json.loads((tmp_path / "x.json").read_text())["checks"]}
    assert states["drill: a late rank is named"] == states["drill: another shape is named"] == FINE
    assert set(states.values()) == {FINE}
