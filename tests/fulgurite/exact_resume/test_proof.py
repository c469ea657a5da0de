"""What a proof can see, and what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.core.proc import has_exited
from fulgurite.exact_resume.proof.cli import KILL_POINTS, find_steps, main, prove
from fulgurite.exact_resume.proof.examples import diff_examples
from tests.support.project import ROOT

Batches = Sequence[Mapping[str, Sequence[str]]]


def _run(folder: Path, *epochs: Batches) -> Path:
    (folder / "probe").mkdir(parents=True)
    rows = [
        {
            "epoch": epoch,
            "batch": number,
            "step": 1 + number + epoch * len(batches),
            "examples": batch,
            "tensors": {part: "".join(examples) for part, examples in batch.items()},
        }
        for epoch, batches in enumerate(epochs)
        for number, batch in enumerate(batches)
    ]
    (folder / "probe" / "batches-0.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def _diff(folder: Path, exact: Batches, control: Batches, reseeded: Batches) -> dict[str, str]:
    runs = {"exact": exact, "control": control, "reseeded": reseeded}
    return diff_examples(*(_run(folder / name, batches) for name, batches in runs.items()))


def _batches(*examples: str) -> Batches:
    return [{"": list(batch)} for batch in examples]


SHUFFLED = (_batches("ab", "c"), _batches("ca", "b"))


def test_another_order_of_the_same_examples_is_no_difference(tmp_path: Path) -> None:
    assert _diff(tmp_path, _batches("bc", "a"), *SHUFFLED) == {}


def test_batches_of_one_example_are_found(tmp_path: Path) -> None:
    found = _diff(tmp_path, _batches("a", "b", "c"), *SHUFFLED)
    assert found["batches"] == "epoch 0: 3 with exact resume, 2 without it"
    assert found["batch sizes"] == "epoch 0: 1 with exact resume, 2, 1 without it"


def test_missing_repeated_and_other_examples_are_found(tmp_path: Path) -> None:
    found = _diff(tmp_path, _batches("aa", "d"), *SHUFFLED)
    assert found["examples"] == "epoch 0: 2 with exact resume, 3 without it"
    assert found["repeated examples"] == "epoch 0: 1 seen 1 x, 1 seen 2 x with exact resume, 3 seen 1 x without it"
    found = _diff(tmp_path / "others", _batches("ab", "d"), *SHUFFLED)
    assert found == {"examples": "epoch 0: 3, 1 of them others with exact resume, 3 without it"}


def test_a_short_loader_that_repeats_its_batches_within_an_epoch_is_found(tmp_path: Path) -> None:
    again, fresh = ([{".short": list(batch)} for batch in run] for run in (("ab", "cd", "ab"), ("ab", "cd", "ac")))
    found = _diff(tmp_path, again, fresh, fresh)
    assert found.keys() == {"repeated batches"}
    line = "epoch 0, batch.short: 1 seen 1 x, 1 seen 2 x with exact resume, 3 seen 1 x without it"
    assert found["repeated batches"] == line


def test_two_loaders_with_the_same_order_are_found(tmp_path: Path) -> None:
    same: Batches = [{".0.1": ["a"], ".1.1": ["a"]}, {".0.1": ["b"], ".1.1": ["b"]}]
    apart: Batches = [{".0.1": ["a"], ".1.1": ["b"]}, {".0.1": ["b"], ".1.1": ["a"]}]
    found = _diff(tmp_path, same, apart, apart)
    assert found == {"equal tensors": "epoch 0: .0.1 = .1.1 with exact resume, none without it"}


def test_what_depends_on_the_seed_is_not_compared(tmp_path: Path) -> None:
    assert _diff(tmp_path, _batches("aa"), _batches("ab"), _batches("bb")) == {}


def test_a_run_is_killed_between_two_saves_with_a_row_in_between(tmp_path: Path) -> None:
    epoch = _batches(*"abcdefgh")
    run = _run(tmp_path, epoch, epoch, epoch)
    # saved after steps 8, 11 and 14; rows of steps 12 and 13 follow the save that the run resumes from
    assert find_steps(run, ["between"]) == {"between": 14}


def test_a_run_of_one_epoch_is_killed_at_the_steps_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path, _batches(*"abcd"))
    assert find_steps(run, KILL_POINTS) == {"first": 1, "middle": 2, "last": 4, "between": 4}
    assert capsys.readouterr().out == "next: left out, since the run has one epoch\n"
    with pytest.raises(UserError, match="--kill-at=next: step 5 is not one of the 4 steps in 1 epochs"):
        find_steps(run, ["next"])


def test_an_unseeded_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^seed=null: no two unseeded runs are equal. Set a number, e.g. seed=1.$"):
        prove(["seed=null"], tmp_path)


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["data.workers=2"], ["data.workers=2: there is no such key. Did you mean 'data.num_workers'?"]),
        (["model.net.hiden_size=8"], ["model.net.hiden_size=8: there is no such key. model.net has"]),
        (["experiment=exmple", "sed=1"], ["Did you mean 'example'?", "Did you mean 'seed'?"]),
        (["data.batch_size=0"], ["data.batch_size=0: "]),
    ],
)
def test_a_wrong_config_is_refused_as_in_training_before_a_folder_is_made(
    overrides: list[str], lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(overrides: Sequence[str], output: Path) -> int:
        pytest.fail(f"started {overrides}")

    assert main([*overrides, f"--folder={tmp_path}/proof"], start) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == len(lines)
    assert all(line in error for line in lines), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--kill-at=0", "--kill-at=0: is not a kill point. Choose from first,"),
        ("--json=no/such/x.json", "--json=no/such/x.json: the folder "),
        (f"--folder={__file__}", f"--folder={__file__}: is not an empty folder. Name a new one."),
    ],
)
def test_a_wrong_option_is_refused_before_a_run_starts(
    option: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option], lambda *_: pytest.fail("a run starts")) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_each_run_is_announced_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[list[str]] = []
    printed: list[list[str]] = []

    def start(overrides: Sequence[str], output: Path) -> int:
        started.append(list(overrides))
        output.touch()
        if len(started) == 1:
            _run(tmp_path / "reference", _batches(*"abcdefgh"))
        printed.append(capsys.readouterr().out.splitlines())
        return -signal.SIGKILL if any("kill_at=6" in item for item in overrides) else 0

    (proof,) = prove([], tmp_path, kill_at=["between"], control=False, start=start)
    assert (proof.kill_point, proof.killed_step) == ("between", 6)
    first, second, third = printed
    assert first[0] == "2 trainings: a reference, 1 killed and resumed"
    assert re.fullmatch(r"reference: took \d\.\d s; the other 1 take about \d\.\d s", second[0])
    assert [len(lines) for lines in printed] == [2, 2, 1]
    assert third == ["reference-killed-between: resuming"]
    assert "callbacks.last_checkpoint.every_n_train_steps=3" in started[1]
    assert all("++trainer.log_every_n_steps=2" in item for item in (started[0], started[1]))


TRAINING = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
PROOF = """
import signal
import sys
from pathlib import Path
from fulgurite.__main__ import main
from fulgurite.exact_resume.proof import cli
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
cli.prove = lambda *_, **named: cli.start_process([], Path("output.log"))
sys.exit(main(["prove-resume"]))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the training follows its parent on Linux only")
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 143), ("SIGKILL", -9)])
def test_a_signal_stops_a_proof_with_the_training_that_it_runs(number: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(TRAINING)
    (tmp_path / ".project-root").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROJECT_ROOT": str(tmp_path)}
    output = tmp_path / "output.log"
    with subprocess.Popen([sys.executable, "-c", PROOF], cwd=tmp_path, env=environment) as proof:
        try:
            assert _wait_for(lambda: output.exists() and output.read_text().endswith("\n"))
        finally:
            proof.send_signal(signal.Signals[number])
    assert proof.returncode == code
    training = int(output.read_text())
    assert _wait_for(lambda: has_exited(training))


def _wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
