"""The benchmark measures what it says: its statistics by hand, its report from a short run of all of it."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fulgurite.checkpoints.manifest import verify
from scripts.bench.checkpoints import checkpoint_rows
from scripts.bench.epochs import window_medians
from scripts.bench.measure import Row, Threshold, differences, measure_in_turns, ratios, run_child
from scripts.bench.report import save_report, to_markdown
from scripts.bench.run import exit_code, parse_args
from scripts.bench.startup import command_rows, torch_modules
from scripts.bench.store import READS, store_rows
from tests.support.run_if import RunIf

needs_linux = RunIf(path="/proc/self/status")
ROW = Row("P2", "one thing over another", "x", [3.0, 1.0, 2.0, 9.0], Threshold(2.0), {"one, s": [3.0, 1.0, 2.0, 9.0]})
ABOUT: dict[str, Any] = {"date": "2030-01-02T03:04:05+00:00", "cores": 2}


def test_things_are_called_in_turns_after_one_call_each_that_does_not_count() -> None:
    calls: list[str] = []

    def counted(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = measure_in_turns({name: lambda name=name: counted(name) for name in "abc"}, repeats=2)  # type: ignore[misc]
    assert "".join(calls) == "abc" * 3
    assert found == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}


def test_a_row_is_judged_by_the_median_of_its_samples() -> None:
    assert ROW.value == 2.5  # of 1, 2, 3, 9
    assert ROW.kept is False
    assert dataclasses.replace(ROW, samples=[3.0, 1.0, 2.0]).kept is True
    assert dataclasses.replace(ROW, bar=Threshold(2.5, at_least=True)).kept is True
    assert dataclasses.replace(ROW, bar=Threshold(2.6, at_least=True)).kept is False
    assert dataclasses.replace(ROW, bar=None).kept is None


def test_a_number_that_is_none_keeps_no_promise() -> None:
    assert not Threshold(1.0).met(math.nan)
    assert not Threshold(1.0, at_least=True).met(math.nan)


def test_ratios_and_differences_are_taken_round_by_round() -> None:
    assert ratios([3.0, 8.0], [2.0, 4.0]) == [1.5, 2.0]
    assert differences([3.0, 8.0], [2.0, 4.5]) == [1.0, 3.5]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_windows_are_medians_of_the_gaps_between_steps_in_milliseconds() -> None:
    gaps = [1, 1, 9, 2, 2, 2, 8, 4]  # ms; the first window has one gap less, as the first step has none before it
    stamps = [0.0]
    for gap in gaps:
        stamps.append(stamps[-1] + gap / 1000)
    assert window_medians(stamps, 3) == pytest.approx([1.0, 2.0, 4.0])


def test_reads_of_a_store_are_measured_on_one_and_on_four_threads(tmp_path: Path) -> None:
    rows = store_rows(1, tmp_path, reads=800)
    assert {row.key for row in rows} == {"P10"}
    reads = [row for row in rows if row.bar == Threshold(3.0)]
    assert len(reads) == 2 * len(READS)
    assert {row.what.rpartition(", ")[2] for row in reads} == {"1 thread", "4 threads"}
    (one, four) = [row for row in rows if row.what.startswith("omegaconf over the slowest read")]
    assert one.bar == four.bar == Threshold(10.0, at_least=True)
    nanoseconds = reads[0].parts
    expected = ratios(nanoseconds["store.get(key), ns"], nanoseconds["a dict lookup, ns"])
    assert reads[0].samples == pytest.approx(expected)


def test_a_missed_promise_ends_with_1() -> None:
    good = dataclasses.replace(ROW, samples=[1.0])
    assert exit_code([good, ROW]) == 1
    assert exit_code([good, dataclasses.replace(ROW, bar=None)]) == 0


def test_imports_of_torch_are_found_among_the_reported_ones() -> None:
    report = (
        "import time:  1 |  2 |     torch._C\nimport time:  3 |  4 |   torchmetrics\nimport time:  5 |  9 | torch\n"
    )
    assert torch_modules(report) == ["torch._C", "torch"]
    real = run_child([sys.executable, "-X", "importtime", "-c", "import json"])
    assert torch_modules(real.err) == []


@RunIf(posix=True)
def test_a_child_is_accounted_for_alone_and_by_cpu_not_by_waiting() -> None:
    sleeper = run_child([sys.executable, "-c", "import time; time.sleep(1); print('done')"])
    assert (sleeper.exit_code, sleeper.out, sleeper.err) == (0, "done\n", "")
    assert sleeper.wall >= 1
    busy = (
        "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(time.process_time(), flush=True)\nsys.exit(3)"
    )
    worker = run_child([sys.executable, "-c", busy])
    assert worker.exit_code == 3
    assert sleeper.cpu < sleeper.wall - 0.9
    assert float(worker.out) <= 1.1 * worker.cpu
    assert worker.cpu < 2 * float(worker.out)


def test_the_report_tells_every_sample_and_never_overwrites_another_one(tmp_path: Path) -> None:
    first, second = (save_report(tmp_path, [ROW], ABOUT) for _ in range(2))
    assert [first.name, second.name] == ["2030-01-02.md", "2030-01-02-2.md"]
    kept = json.loads(first.with_suffix(".json").read_text())
    assert kept["about"] == ABOUT
    (row,) = kept["rows"]
    assert (row["value"], row["bar"], row["kept"], row["samples"]) == (2.5, "<= 2", False, [3.0, 1.0, 2.0, 9.0])
    assert "| P2 | one thing over another | 2.5 x | <= 2 | MISSED | 3, 1, 2, 9 |" in to_markdown([ROW], ABOUT)


def test_few_rounds_are_refused_unless_nothing_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_args([]).repeats == 5
    assert parse_args(["--quick"]).repeats == 1
    for words, message in (
        (["--repeats", "4"], "too few for a median"),
        (["epoch"], "epoch: not a benchmark. Choose from startup, epochs, long, exact, memory, checkpoints, sweeps"),
        (["--clock", "cpu", "--threads", "2"], "Pass --threads 1."),
    ):
        with pytest.raises(SystemExit) as ended:
            parse_args(words)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def numbers(node: Any) -> Iterator[float]:
    """Yield every number below a JSON node."""
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield node
    elif isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from numbers(child)


def short_run(folder: Path, *benches: str) -> dict[str, Any]:
    """Run the benchmark as the command does, with few images and one round, and return its report."""
    done = run_child([sys.executable, "scripts/bench/run.py", *benches, "--quick", "--output", str(folder)])
    assert done.exit_code == 0, done.err
    (path,) = folder.glob("*.json")
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["about"]["versions"]["torch"] == torch.__version__
    assert report["about"]["settings"]["quick"] is True
    for row in report["rows"]:
        assert row["samples"]
        assert all(math.isfinite(number) for number in numbers(row))
        assert row["kept"] is None  # a short run judges nothing
        assert f"| {row['key']} | {row['what']} |" in path.with_suffix(".md").read_text()
    return report


@needs_linux
@pytest.mark.slow
def test_a_short_run_measures_training_and_memory(tmp_path: Path) -> None:
    rows = short_run(tmp_path, "epochs", "long", "memory")["rows"]
    assert [row["key"] for row in rows] == ["P2", "P2", "P3", "P3", "P3", "P6", "P6"]
    parts = rows[0]["parts"]
    assert set(parts) == {f"{name}, {unit}" for name in ("plain", "ancestor", "ours") for unit in ("s", "val/acc")}
    assert rows[0]["value"] == pytest.approx(parts["ours, s"][0] / parts["plain, s"][0])
    assert rows[1]["value"] == pytest.approx(parts["ancestor, s"][0] / parts["ours, s"][0])
    # all three learn: ten classes are told apart better than by chance after 20 steps
    assert min(values[0] for name, values in parts.items() if name.endswith("val/acc")) > 0.2
    # a mapped set is no private memory of the process
    assert rows[6]["parts"]["own memory, MiB"][-1] < 0.5 * rows[6]["parts"]["arrays, MiB"][0]
    assert rows[6]["parts"]["mapped, MiB"][0] > 0.9 * rows[6]["parts"]["arrays, MiB"][0]


@pytest.mark.slow
def test_a_short_run_measures_a_checkpoint_beside_a_plain_one(tmp_path: Path) -> None:
    rows = checkpoint_rows(tmp_path, 1_000_000, repeats=2)
    promises = [("P9", "x", "<= 1.5"), ("P9", "x", "<= 1.25"), ("P9", "s", "None")]
    assert [(row.key, row.unit, str(row.bar)) for row in rows] == promises
    assert rows[1].samples == ratios(rows[1].parts["blocked, s"], rows[1].parts["copy, s"])
    assert not verify(tmp_path / "behind.ckpt")
    assert set(rows[0].parts) == {"plain, s", "ours, s", "verify, s"}
    assert rows[0].samples == ratios(rows[0].parts["ours, s"], rows[0].parts["plain, s"])
    # both wrote the same: a name of each record stands in the file
    assert (tmp_path / "last.ckpt").stat().st_size == pytest.approx(
        (tmp_path / "plain-2.ckpt").stat().st_size, rel=0.01
    )
    assert (tmp_path / "last-previous.ckpt").exists()


@needs_linux
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_run_measures_sweeps(tmp_path: Path) -> None:
    rows = short_run(tmp_path, "sweeps")["rows"]
    assert [(row["key"], row["unit"]) for row in rows] == [("P5", "x")] * 2
    assert rows[0]["value"] == rows[0]["parts"]["2 slots, s"][0] / rows[0]["parts"]["serial, s"][0]
    assert min(rows[0]["parts"]["serial, s"]) > 3, "three jobs of a second"


@needs_linux
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_commands_without_a_run_cost_a_few_imports_of_hydra() -> None:
    for row in command_rows(repeats=3):
        assert row.bar is not None
        # twice the bar of `make bench`: room for a busy machine; an import of torch costs more than that
        assert row.value <= 2 * row.bar.limit, (row.what, row.samples)


@needs_linux
@pytest.mark.slow
def test_a_short_run_measures_the_start(tmp_path: Path) -> None:
    rows = short_run(tmp_path, "startup")["rows"]
    assert [row["key"] for row in rows] == ["P1"] * 8 + ["P4"]
    assert [row["value"] for row in rows if "modules of torch" in row["what"]] == [0] * 4
    assert rows[0]["value"] > rows[0]["parts"]["import hydra, CPU, s"][0]


@needs_linux
@pytest.mark.slow
@pytest.mark.timeout(400)  # three rounds: of the speed of a shared machine one says little
def test_a_short_run_measures_two_processes_beside_one(tmp_path: Path) -> None:
    row, machine = short_run(tmp_path, "ranks", "--clock", "cpu", "--repeats", "3")["rows"]
    assert (row["key"], machine["bar"]) == ("P7", None)
    parts = row["parts"]
    assert row["samples"] == ratios(parts["two together, samples/s"], parts["one, samples/s"])
    assert machine["samples"] == ratios(parts["two apart, samples/s"], parts["one, samples/s"])
    # by the seconds that are computed, not waited, which a busy machine does not touch
    assert row["value"] > 1.2
    assert parts["one, ms of CPU a sample"][0] > 0
