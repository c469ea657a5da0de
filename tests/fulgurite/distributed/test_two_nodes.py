"""A run on two nodes with two links: the interfaces it uses, and a directory that one node does not see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.cli import only_run, read_json
from tests.support.launcher_env import TWO
from tests.support.two_nodes import Node, two_nodes, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(why_not()), reason=str(why_not())),
]
STEPS = 40
MUCH, LITTLE = 4_000_000, 1_500_000  # bytes: 40 sums of 272 kB of gradients; what processes say of themselves
ONE_EACH = ("trainer.devices=1", "trainer.num_nodes=2", f"trainer.limit_train_batches={STEPS}", "data.batch_size=32")


def run_both(nodes: tuple[Node, Node], *overrides: str) -> list[tuple[int, str]]:
    """Run the command of a training on both nodes, and return exit code and output of each."""
    started = []
    for node in nodes:
        env = {"RANK": str(node.number), "WORLD_SIZE": "2", "MASTER_ADDR": nodes[0].address(), "MASTER_PORT": "29611"}
        started.append(node.start(sys.executable, "src/train.py", *TWO, *ONE_EACH, *overrides, env=env))
    said = [process.communicate(timeout=300)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.mark.parametrize("links", [("ethA",), ("ethB",), ("ethA", "ethB")], ids=",".join)
def test_gradients_use_the_interfaces_of_the_config(links: tuple[str, ...], tmp_path: Path) -> None:
    with two_nodes(tmp_path) as nodes:
        asked = (f"distributed.interfaces=[{','.join(links)}]", f"paths.log_dir={tmp_path}/logs")
        ended = run_both(nodes, *asked)
        assert [code for code, _ in ended] == [0, 0], ended
        sent = {link: nodes[1].bytes_sent(link) for link in ("ethA", "ethB")}
    assert read_json(only_run(tmp_path / "logs") / "run.json")["ranks"] == 2
    for link, count in sent.items():
        assert count > MUCH if link in links else count < LITTLE, sent
    if len(links) == 2:
        assert 0.5 < sent["ethA"] / sent["ethB"] < 2, sent


def test_a_run_directory_that_one_machine_does_not_see_exits_both_with_one_line(tmp_path: Path) -> None:
    shared, own = tmp_path / "logs", tmp_path / "own"
    (shared / "train").mkdir(parents=True)
    own.mkdir()
    with two_nodes(tmp_path) as nodes:
        nodes[1].private[shared / "train"] = own
        ended = run_both(nodes, f"paths.log_dir={shared}", "distributed.interfaces=[ethA]")
    assert [code for code, _ in ended] == [2, 2], ended
    [line] = [line for _, text in ended for line in text.splitlines() if "error" in line]
    assert line.startswith(f"error: {shared}/train/runs/")
    assert "rank 1 (node1) does not see files that rank 0 writes" in line
    assert list((shared / "train/runs").iterdir()) == []
