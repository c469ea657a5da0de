"""The doctor on one machine: findings, exit codes and errors for invalid input."""

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
from fulgurite.doctor.cli import main, parse_args
from fulgurite.doctor.cluster.placement import Placement, detect_placement, first_host
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, LEFT_OUT, Check, RankInfo, compare_ranks
from tests.support.multirank import DoctorProcesses, each_rank, free_port
from tests.support.project import ROOT


def facts(rank: int, **other: object) -> RankInfo:
    defaults: dict[str, object] = {
        "rank": rank, "host": f"n{rank}", "machine": f"m{rank}", "pid": 100, "launcher": "srun", "local_rank": 0,
        "device": "cpu", "interfaces": ["eth0"], "addresses": [f"10.0.0.{rank + 1}"], "leads_to_rank_0": "eth0",
        "versions": {"torch": "2.13.0"}, "commit": "abc", "config": "f" * 64, "free": 2**34,
    }  # fmt: skip
    return RankInfo(**{**defaults, **other})  # type: ignore[arg-type]


def test_ranks_that_agree_are_fine() -> None:
    assert {check.state for check in compare_ranks([facts(0), facts(1)], 1)} == {FINE}


@pytest.mark.parametrize(
    ("other", "check"),
    [
        (
            {"versions": {"torch": "2.12.0"}},
            "version of torch: 2.13.0 on rank 0, 2, 2.12.0 on rank 1. Use the same on all ranks.",
        ),
        (
            {"commit": "abc+"},
            "commit of the code: abc on rank 0, 2, abc+ on rank 1. Use the same on all ranks.",
        ),
        (
            {"config": "0" * 64},
            "config: ffffffffffff on rank 0, 2, 000000000000 on rank 1. Use the same on all",
        ),
        ({"free": 2**29}, "disk: 0.5 GiB free on rank 1 (n1), less than 1. Free disk space."),
        (
            {"interfaces": ["lo"], "addresses": ["127.0.0.1"], "leads_to_rank_0": "ib0"},
            "interfaces: lo (127.0.0.1) on rank 1 (n1): other machines cannot reach a loopback interface",
        ),
    ],
)
def test_a_rank_that_differs_is_named(other: dict[str, object], check: str) -> None:
    found = [one for one in compare_ranks([facts(0), facts(1, **other), facts(2)], 1) if one.state == FINDING]
    assert len(found) == 1
    assert f"{found[0].name}: {found[0].detail}".startswith(check)


def test_a_loopback_is_right_on_one_machine() -> None:
    alone = [facts(rank, machine="m", interfaces=["lo"], addresses=["127.0.0.1"]) for rank in range(2)]
    assert Check("interfaces", FINE, "lo") in compare_ranks(alone, 1)


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
    ("env", "placement"),
    [
        ({}, Placement()),
        (
            {**TORCHRUN, **AGENT},
            Placement(1, 4, 1, "torchrun", "a", 1234, agent_store=True, attempt=2),
        ),
        (TORCHRUN, Placement(1, 4, 1, "environment", "a", 1234)),
        (SRUN, Placement(3, 4, 1, "srun", "gpu03", 19321)),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Placement()),
        # a batch script has these variables too, but is one process
        ({key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}, Placement()),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
            Placement(1, 2, 1, "mpiexec", "127.0.0.1", 29500),
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "MASTER_ADDR": "b"},
            Placement(0, 2, 0, "mpiexec", "b", 29500),
        ),
    ],
)  # fmt: skip
def test_placement_is_detected_from_the_launcher(env: dict[str, str], placement: Placement) -> None:
    assert detect_placement(env) == placement


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({**TORCHRUN, "RANK": "4"}, "RANK=4: ranks go from 0 to 3 with WORLD_SIZE=4"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK=-1: not a whole number"),
        ({**TORCHRUN, "MASTER_PORT": "99999"}, "MASTER_PORT=99999: not a port"),
        ({"RANK": "1"}, "RANK=1: WORLD_SIZE is not set. Set both"),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2"},
            "MASTER_ADDR: not set, and mpiexec does not name the machine of rank 0",
        ),
    ],
)
def test_contradicting_variables_are_one_line(env: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        detect_placement(env)
    assert str(caught.value).startswith(line)


def test_the_first_host_of_slurms_notation_is_found() -> None:
    assert [first_host(nodes) for nodes in ("a,b", "gpu[03-05,7],cpu1", "n[1,3]", "one")] == ["a", "gpu03", "n1", "one"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--benhc"], "--benhc: not an option of python -m fulgurite doctor. Did you mean '--bench'?"),
        (["--bench", "--collectives", "all_reduc"], "--collectives=all_reduc: choose from all_reduce, "),
        (["--timeout", "0"], "--timeout=0: out of range. Pass 1 or more."),
        (["--timeout", "x"], "--timeout=x: is not of type float. --help lists the options."),
        (["--calls", "2.5"], "--calls=2.5: is not of type int. --help lists the options."),
        (["--bench", "--max-bytes", "many"], "--max-bytes=many: not a size"),
        (["--bench", "--max-bytes", "4"], "--max-bytes=4: too small. Give 8 bytes or more."),
        (["--plot", "x.png"], "--plot: needs the measurements of --bench. Add --bench."),
        (["--bench", "--plot", "x.pdf"], "--plot=x.pdf: not an image file. Name a .png or .svg"),
        (["--json", "no/such/x.json"], f"--json=no/such/x.json: the folder {Path.cwd()}/no/such does not exist"),
        (["--bench", "--threshold", "none.yaml"], "--threshold=none.yaml: cannot be read"),
        (["--json", "seed=7"], "--json=seed=7: looks like an override. Put overrides before --json."),
    ],
)
def test_invalid_arguments_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {line}")
    assert output.count("\n") == 1


def test_invalid_arguments_import_no_torch() -> None:
    code = "import sys; from fulgurite.doctor import cli; cli.main(['--benhc']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_options_and_overrides_mix_in_any_order() -> None:
    args = parse_args(["--bench", "--max-bytes", "1MiB", "experiment=example", "--calls", "3", "seed=1"])
    assert (args.max_bytes, args.calls, args.overrides) == (2**20, 3, ["experiment=example", "seed=1"])


def test_two_ranks_are_found_right_and_measured(tmp_path: Path) -> None:
    (tmp_path / "least.yaml").write_text("all_reduce: {8: 1000}\n")
    codes, output = DoctorProcesses(
        tmp_path, each_rank(2), "--bench", "--max-bytes", "64KiB", "--factor", "64", "--calls", "3", "--warmup", "1",
        "--link-bytes", "64KiB", "--no-drills", "--timeout", "30", "--folder", str(tmp_path / "shared"), "seed=7",
        "--threshold", f"{tmp_path}/least.yaml", "--json", f"{tmp_path}/x.json", "--markdown", f"{tmp_path}/x.md",
    ).end()  # fmt: skip
    assert codes == [1, 1], output
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
    assert "2 ranks on 1 machine, started by environment, backend gloo" in output[0]
    assert output[1] == ""  # only rank 0 prints
    assert list((tmp_path / "shared").iterdir()) == []


def test_one_rank_reports_the_checks_left_out(tmp_path: Path) -> None:
    [code], [output] = DoctorProcesses(tmp_path, [{}], "--bench", "--json", f"{tmp_path}/x.json").end()
    assert code == 0, output
    checks = json.loads((tmp_path / "x.json").read_text())["checks"]
    assert checks[-1] == {
        "name": "bench",
        "state": LEFT_OUT,
        "detail": "needs two ranks or more; start it with torchrun --nproc-per-node 2",
    }
    assert "no findings" in output
    assert output.startswith("1 rank on 1 machine, without a launcher, backend gloo")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--backend", "nccl"], "--backend=nccl: "),
        (["--interface", "nope0"], "--interface=nope0: "),
        (["model.net.lin1_sise=3"], "command line: model.net.lin1_sise=3: there is no such key. Did you mean "),
    ],
)
def test_invalid_input_on_one_rank_exits_with_2_on_both(arguments: list[str], line: str, tmp_path: Path) -> None:
    # only rank 1 has the invalid input; rank 0 prints the error of the machine
    codes, output = DoctorProcesses(tmp_path, each_rank(2), ["--timeout", "20"], ["--timeout", "20", *arguments]).end()
    assert codes == [2, 2], output
    assert output[0].startswith(f"error: {line}")
    assert output[0].count("\n") == 1


def test_different_world_sizes_exit_with_2_on_both(tmp_path: Path) -> None:
    envs = each_rank(2)
    envs[1]["WORLD_SIZE"] = "3"
    codes, output = DoctorProcesses(tmp_path, envs, "--timeout", "20").end()
    assert codes == [2, 2], output
    assert "WORLD_SIZE=2 on rank 0 but 3 on rank 1: the ranks disagree" in output[0]


def test_a_config_that_differs_is_found(tmp_path: Path) -> None:
    quick = ["--timeout", "20", "--no-drills"]
    codes, output = DoctorProcesses(tmp_path, each_rank(2), quick, [*quick, "seed=1"]).end()
    assert codes == [1, 1], output
    assert re.search(r"finding +config", output[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank_is_named_within_the_timeout(rank: int, tmp_path: Path) -> None:
    [env] = [env for env in each_rank(2) if env["RANK"] != str(rank)]
    [code], [output] = DoctorProcesses(tmp_path, [{**env, "LOCAL_RANK": "0"}], "--timeout", "1").end(20)
    assert code == 1, output
    told = {0: f"MASTER_ADDR=127.0.0.1 MASTER_PORT={env['MASTER_PORT']}: rank 1 ", 1: "rank 1 did not join within 1 s"}
    assert output.splitlines()[-1].startswith(f"error: {told[rank]}")


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", port := free_port()))
        taken.listen(1)
        [code], [output] = DoctorProcesses(tmp_path, each_rank(2, port)[:1], "--timeout", "5").end(20)
    assert (code, output) == (2, f"error: MASTER_PORT={port}: the port is in use. Set another port.\n")


@pytest.mark.slow
def test_a_rank_that_is_killed_in_the_bench_is_named(tmp_path: Path) -> None:
    endless = ["--bench", "--no-drills", "--no-links", "--calls", "1000000", "--seconds", "300", "--timeout", "6"]
    doctors = DoctorProcesses(
        tmp_path, each_rank(3), *endless, "--collectives", "all_reduce", "--json", f"{tmp_path}/x.json"
    )
    pid = doctors.processes[1].pid
    assert pid is not None
    while _num_context_switches(pid) < 10_000:  # the bench waits for other ranks at every call
        time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    codes, output = doctors.end(40)
    assert codes == [1, -9, 1], output
    told = json.loads((tmp_path / "x.json").read_text())["findings"]
    assert told[0].startswith("all_reduce of 8 B: the ranks lost their connections")
    assert f"(pid {pid}) did not answer within 6 s" in told[1]


def _num_context_switches(pid: int) -> int:
    """Return the number of voluntary context switches of a process."""
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
