"""The doctor on two machines: network namespaces with two links, of which one is slow, cut or misconfigured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.two_nodes import LINKS, Node, end, torchrun, two_nodes, wait_gone, why_not

pytestmark = pytest.mark.slow
DOCTOR = ("-m", "fulgurite", "doctor")
Nodes = tuple[Node, Node]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Make two nodes with two links."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with two_nodes(tmp_path) as made:
        yield made


def start(nodes: Nodes, *arguments: str, env: dict[str, str] | None = None) -> list[subprocess.Popen[str]]:
    """Start a doctor on both nodes; its own exit codes are lost in torchrun's 1."""
    commands = torchrun(nodes, *DOCTOR, "--timeout", "10", *arguments)
    return [node.start(*command, env=env) for node, command in zip(nodes, commands, strict=True)]


def start_plain(nodes: Nodes, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start a doctor on both nodes without a launcher of torch's."""
    started = []
    for node in nodes:
        env = {"RANK": str(node.number), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": nodes[0].address()}
        started.append(
            node.start(sys.executable, *DOCTOR, "--timeout", "10", *arguments, env={**env, "MASTER_PORT": "29411"})
        )
    return started


def findings(path: Path) -> list[str]:
    """Return the findings without slow processors, which depend on the load of this machine."""
    found: list[str] = json.loads(path.read_text())["findings"]
    return [line for line in found if "multiplies" not in line]


def test_two_machines_are_distinguished_and_both_links_work(nodes: Nodes, tmp_path: Path) -> None:
    ended = [end(one, 120) for one in start(nodes, "--interface", "ethA,ethB", "--json", f"{tmp_path}/x.json")]
    assert [code for code, _ in ended] == [0, 0], ended
    found = json.loads((tmp_path / "x.json").read_text())
    assert {check["state"] for check in found["checks"]} == {"fine"}
    assert [(one["host"], one["interfaces"], one["addresses"]) for one in found["facts"]] == [
        ("node0", ["ethA", "ethB"], ["10.77.1.1", "10.77.2.1"]),
        ("node1", ["ethA", "ethB"], ["10.77.1.2", "10.77.2.2"]),
    ]
    assert "2 ranks on 2 machines" in ended[0][1]
    assert wait_gone(nodes) == []


def test_a_slowed_link_is_named_with_its_direction(nodes: Nodes, tmp_path: Path) -> None:
    nodes[1].slow_down("ethB", "40mbit")
    files = ["--json", f"{tmp_path}/x.json", "--markdown", f"{tmp_path}/x.md", "--plot", f"{tmp_path}/x.png"]
    small = ["--max-bytes", "32KiB", "--factor", "64", "--calls", "3", "--collectives", "all_reduce,all_gather"]
    bench = ["--bench", "--no-drills", *small, "--link-bytes", "1MiB", "--interface", "ethA,ethB"]
    ended = [end(one, 120) for one in start(nodes, *bench, *files)]
    assert [code for code, _ in ended] == [1, 1], ended
    line, *_ = findings(tmp_path / "x.json")  # slowest first; the load of this machine may slow other links
    assert line.startswith("rank 1 (node1) -> rank 0 (node0) over ethB: 0.00")
    links = json.loads((tmp_path / "x.json").read_text())["links"]
    rates = {(link["source"], LINKS[link["interface"]]): link["rate"] for link in links}
    assert len(rates) == 4
    # 40 Mbit/s are 0.005 GB/s
    assert 0.004 < rates.pop((1, "ethB")) < 0.006
    assert min(rates.values()) > 0.05
    assert "over ethB" in ended[0][1]
    row = next(row for row in (tmp_path / "x.md").read_text().splitlines() if row.endswith("| slow |"))
    assert row.startswith("| rank 1 (node1) | rank 0 (node0) | ethB |")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(node.bytes_sent(link) for node in nodes for link in LINKS) > 1_000_000


def bench_until_cut(nodes: Nodes, link: str, sent: int, *arguments: str) -> tuple[list[str], float]:
    """Cut a link during an endless bench after `sent` bytes; return each output, and seconds."""
    endless = ["--bench", "--no-drills", "--no-links", "--calls", "1000000", "--seconds", "300"]
    started = start(nodes, *endless, "--interface", link, "--collectives", "all_reduce", *arguments)
    until = time.monotonic() + 90
    while nodes[0].bytes_sent(link) < sent:
        assert time.monotonic() < until, "the bench did not start"
        time.sleep(0.2)
    nodes[0].cut(link)
    cut = time.monotonic()
    ended = [end(one, 60) for one in started]
    took = time.monotonic() - cut
    assert [code for code, _ in ended] == [1, 1]
    return [output for _, output in ended], took


def test_a_link_that_is_cut_is_named_within_the_timeout_and_nothing_stays(nodes: Nodes, tmp_path: Path) -> None:
    _, took = bench_until_cut(nodes, "ethB", 1_000_000, "--json", f"{tmp_path}/x.json")
    assert took < 2 * 10 + 15
    found = findings(tmp_path / "x.json")
    assert found[0].startswith("all_reduce of 8 B: the ranks lost their connections")
    assert "ethB is down on rank 0 (node0)" in found
    assert any(line.startswith("rank 1 (node1) cannot reach rank 0 (node0) at 10.77.2.1 over ethB") for line in found)
    assert wait_gone(nodes) == []


def test_a_link_that_is_cut_and_carried_the_store_too_is_named_on_both_machines(nodes: Nodes) -> None:
    ended, took = bench_until_cut(nodes, "ethA", 10_000_000)
    assert took < 2 * 10 + 25
    # rank 0's torchrun serves the store; rank 1 cannot reach it
    here, there = (" ".join(output.split()) for output in ended)
    assert re.search(r"finding at fault ethA is down on rank 0 \(node0\) finding at fault rank 1 \(node1\)", here), here
    assert re.search(r"all_reduce of \S+ \S+: rank 1 \(node1\) lost the other ranks \(.*\), ethA is down", there), there
    assert "waiting for the store at 10.77.1.1:29400" in there
    assert wait_gone(nodes) == []


def test_the_loopback_is_refused_between_machines_and_the_right_interface_named(nodes: Nodes, tmp_path: Path) -> None:
    # /etc/hosts of each node maps its own name to 127.0.0.1, and no option names an interface
    ended = [end(one, 60) for one in start_plain(nodes, "--json", f"{tmp_path}/x.json")]
    assert [code for code, _ in ended] == [1, 1], ended
    [line] = findings(tmp_path / "x.json")
    assert line.startswith(
        "lo (127.0.0.1) on rank 0 (node0), rank 1 (node1): other machines cannot reach a loopback interface. "
    )
    assert "Set GLOO_SOCKET_IFNAME=ethA" in line


def test_bad_input_on_one_machine_ends_both_with_2_and_one_line(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "shared").mkdir()
    nodes[1].private[tmp_path / "shared"] = tmp_path / "other"
    ended = [end(one, 60) for one in start_plain(nodes, "--interface", "ethA", "--folder", f"{tmp_path}/shared")]
    assert [code for code, _ in ended] == [2, 2], ended
    line = f"error: --folder={tmp_path}/shared: rank 1 (node1) does not see the files of rank 0 (node0). "
    assert all(output.startswith(line) and output.count("\n") == 1 for _, output in ended), ended
    assert list((tmp_path / "shared").iterdir()) == list((tmp_path / "other").iterdir()) == []


def test_an_interface_that_does_not_exist_ends_both_with_2_and_one_line(nodes: Nodes) -> None:
    ended = [end(one, 60) for one in start_plain(nodes, "--interface", "eth0")]
    assert [code for code, _ in ended] == [2, 2], ended
    assert all(output.startswith("error: --interface=eth0: node") and output.count("\n") == 1 for _, output in ended), (
        ended
    )
    assert all("ethA (10.77.1." in output for _, output in ended)


def test_a_master_that_cannot_be_reached_is_one_line_within_the_timeout(nodes: Nodes) -> None:
    nodes[1].cut("ethA")
    begin = time.monotonic()
    ended = [end(one, 60) for one in start_plain(nodes, "--interface", "ethB")]
    assert time.monotonic() - begin < 10 + 25
    assert [code for code, _ in ended] == [1, 1], ended
    assert ended[0][1].startswith("error: rank 1 did not join within 10 s")
    assert ended[1][1].startswith(
        "error: MASTER_ADDR=10.77.1.1 MASTER_PORT=29411: rank 1 (node1) did not connect within"
    )
    assert [output.count("\n") for _, output in ended] == [1, 1], ended
