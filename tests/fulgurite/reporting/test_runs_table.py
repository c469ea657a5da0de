"""The table of runs: what is found, filtered, sorted and written, and how long ten thousand take."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.config.metric_names import is_minimized
from fulgurite.reporting.runs_cli import main
from fulgurite.runs.run_directory import find_runs, read_runs
from tests.support.fake_sweep import leave_run, leave_sweep
from tests.support.project import ROOT
from tests.support.pseudo_terminal import PseudoTerminal

MANY = 10_000


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Three runs of their own and a sweep of twenty."""
    runs = tmp_path / "train" / "runs"
    leave_run(runs / "a", ["model.optimizer.lr=1e-3"], {"test/acc": 0.9, "test/loss": 0.3}, tags=["baseline"])
    leave_run(runs / "b", ["model.optimizer.lr=0.1"], {"test/acc": 0.8, "test/loss": float("nan")})
    leave_run(runs / "c", ["+logger.wandb.api_key=s3cret"], None, reason="no room", task_name="other")
    leave_sweep(tmp_path / "train" / "multiruns" / "2026")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, object]]:
    """Return the rows that a command line shows as JSON."""
    assert main([*argv, "--json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def names(rows: list[dict[str, object]]) -> list[str]:
    return [str(row["run"]).rpartition("/")[2] for row in rows]


def test_runs_are_filtered_by_tag_task_status_and_override(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(shown(capsys, str(logs))) == 23
    assert names(shown(capsys, str(logs), "--tag=baseline")) == ["a"]
    assert names(shown(capsys, str(logs), "--task=other")) == ["c"]
    assert sorted(names(shown(capsys, str(logs), "--status=failed"))) == ["19", "c"]
    # numbers by what they are, several values by either
    assert names(shown(capsys, str(logs), "model.optimizer.lr=0.001")) == ["a"]
    wanted = ("model.optimizer.lr=0.01", "seed=1,3", "model.net.lin1_size=128", "--order=asc", "--sort=run")
    assert names(shown(capsys, str(logs), *wanted)) == ["16", "18"]


def test_runs_of_a_proof_are_left_out_beside_others(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(logs / "prove/today/reference", ["++callbacks.probe._target_=fulgurite.Probe"], {"test/acc": 0.9})
    assert main([str(logs), "--top=1"]) == 0
    assert capsys.readouterr().err.endswith(f"23 runs below {logs}, without 1 of prove-resume\n")
    assert names(shown(capsys, str(logs / "prove"))) == ["reference"]


def test_columns_suit_names_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(tmp_path / "a", [], {"train_mae": 1.0, "test_mae": 0.3, "val_mae": 0.2})
    assert {"test_mae", "val_mae", "train_mae"} & shown(capsys, str(tmp_path))[0].keys() == {"test_mae"}
    leave_run(tmp_path / "b", [], {"train/x": 1.0, "valid/x": 0.3})
    assert shown(capsys, str(tmp_path))[0].keys() & {"test_mae", "valid/x", "train/x"} == {"test_mae", "valid/x"}


def test_runs_are_sorted_best_first_and_those_without_a_number_last(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = str(logs / "train" / "runs")
    assert names(shown(capsys, runs, "--sort=test/acc")) == ["a", "b", "c"]
    assert names(shown(capsys, runs, "--sort=test/acc", "--order=asc", "--top=2")) == ["b", "a"]
    assert names(shown(capsys, runs, "--sort=test/loss"))[0] == "a"
    assert is_minimized("val/loss_best")
    assert not is_minimized("val/acc_best")


def test_every_format_holds_the_same_numbers(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(logs / "train" / "runs"), "--sort=test/acc", "--top=2", "--metrics=test/acc"]
    assert main([*argv, "--format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["run"], row["test/acc"]) for row in rows] == [("a", "0.9"), ("b", "0.8")]
    assert main([*argv, "--format=markdown"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| a |"))
    assert "| model.optimizer.lr=1e-3 | 0.9 |" in line
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == [
        "run",
        "status",
        "task",
        "start",
        "(UTC)",
        "took",
        "tags",
        "overrides",
        "test/acc",
    ]
    assert "2 of 3 runs shown" in printed.err
    assert main([str(logs / "train/runs/a")]) == 0
    assert capsys.readouterr().err.startswith("1 of 1 run shown, 1 run below ")
    assert shown(capsys, *argv, "--status=pruned") == []


def test_the_overrides_that_all_rows_share_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        leave_run(tmp_path / name, ["experiment=example", "seed=1"], {"test/acc": 0.5})
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "overrides" in printed.out.splitlines()[0].split()
    assert "overrides of every row: experiment=example seed=1\n" in printed.err


def test_a_narrow_terminal_shows_every_column_on_two_lines(logs: Path) -> None:
    with PseudoTerminal(80) as terminal:
        assert main([str(logs / "train/runs"), "--sort=run"]) == 0
    lines = terminal.written.replace("\r", "").splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    heads, texts, first, below = lines[:4]
    assert heads.split() == ["run", "status", "took", "test/acc", "test/loss"]
    assert texts.split("  ")[2:] == ["task", "start (UTC)", "tags", "overrides", "reason"]
    assert first.split() == ["a", "done", "90", "s", "0.9", "0.3"]
    assert below.split("  ")[2:] == ["train", "2026-01-01 10:00", "baseline", "model.optimizer.lr=1e-3"]


def test_a_narrow_terminal_keeps_each_override_whole(tmp_path: Path) -> None:
    names = [f"name={'-'.join([word] * 12)}" for word in ("long", "wide")]
    for number, name in enumerate(names):
        leave_run(tmp_path / str(number), [name], {"test/acc": 0.5})
    with PseudoTerminal(80) as terminal:
        assert main([str(tmp_path)]) == 0
    assert all(name in terminal.written for name in names)


def test_a_sweep_is_one_row_with_its_best(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = shown(capsys, str(logs), "--show=sweeps", "--metrics=val/loss,test/acc")
    assert (row["jobs"], row["states"]) == (20, "19 done, 1 failed")
    assert row["best val/loss"] == pytest.approx(0.11)
    assert row["best test/acc"] == pytest.approx(0.88)


def test_a_run_that_no_process_has_locked_was_killed_and_a_secret_is_not_shown(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", ["+logger.wandb.api_key=s3cret"], None, status="running", end=None)
    [run] = read_runs([folder])
    assert (run.status, run.shown_overrides, run.seconds) == ("killed", ("+logger.wandb.api_key=***",), None)
    assert "killed" in run.reason


def test_a_run_directory_that_is_broken_is_reported_and_the_others_are_shown(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (logs / "train/runs/a/run.json").write_text('{"status": ')
    (logs / "train/runs/b/.hydra/overrides.yaml").write_text('- \'tags=["x: y"]\'\n- "a=\\t"\n')
    assert main([str(logs / "train" / "runs"), "--format=json"]) == 0
    printed = capsys.readouterr()
    assert "a: run.json is not readable" in printed.err
    rows = json.loads(printed.out)
    assert sorted(names(rows)) == ["b", "c"]
    assert next(row for row in rows if row["run"] == "b")["overrides"] == ['tags=["x: y"]', "a=\t"]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--status=failedd",
            "--status=failedd: choose from running, done, failed, killed, pruned. Did you mean 'failed'?",
        ),
        ("--sort=tset/acc", "Did you mean 'test/acc'?"),
        ("--metrics=tset/acc", "--metrics=tset/acc: no run here has it. Did you mean 'test/acc'?"),
        ("model.optimizer.rl=1", "no run here was started with this override. Did you mean 'model.optimizer.lr'?"),
        ("--top=some", "--top=some: not a number of rows"),
        ("--top=0", "--top=0: not a number of rows"),
        ("--frobnicate", "--frobnicate: not an option of python -m fulgurite runs. --help lists the options"),
        ("--statsu=done", "--statsu: not an option of python -m fulgurite runs. Did you mean '--status'"),
        ("status=done", "status=done: an option is written with --. Pass --status done."),
        ("help", "help: an option is written with --. Pass --help."),
        ("--top", "--top: expected one argument"),
        ("/nowhere", "/nowhere: not one folder. Name one folder of runs."),
    ],
)
def test_an_invalid_argument_is_one_line(
    logs: Path, argument: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(logs), argument]) == 2
    printed = capsys.readouterr().err
    assert line in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["/nowhere"], "/nowhere: there is no such folder"),
        ([__file__], f"{__file__}: is a file, not a folder"),
        (["--json", "--format", "csv"], "--format: not allowed with argument --json. --help lists the options."),
        (["--format", "csv", "--json"], "--json: not allowed with argument --format. --help lists the options."),
    ],
)
def test_wrong_arguments_together_are_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.slow
def test_a_table_of_ten_thousand_runs_takes_less_than_three_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(MANY):
        leave_run(
            tmp_path / f"train/runs/{number:05}",
            ["experiment=example", f"model.optimizer.lr={number / MANY}", f"seed={number}"],
            {"test/acc": number / MANY, "test/loss": 1.0, "train/loss": 1.0, "val/acc_best": 0.5},
            command=["train.py", *["some.word=1"] * 10],
            versions=dict.fromkeys(("python", "torch", "lightning", "numpy", "torchmetrics"), "1.2.3"),
        )

    def read_only() -> None:
        for folder in find_runs(tmp_path):
            for name in ("run.json", "results.json", ".hydra/overrides.yaml"):
                (Path(folder) / name).read_bytes()

    def table() -> None:
        assert main([str(tmp_path), "--sort=test/acc", "--status=done"]) == 0
        assert capsys.readouterr().out.count("\n") == MANY + 1

    costs: dict[str, list[float]] = {"read_only": [], "table": []}
    for _ in range(5):
        for work in (read_only, table):
            start = time.process_time()
            work()
            costs[work.__name__].append(time.process_time() - start)
    reading, total = (sorted(costs[name])[2] for name in ("read_only", "table"))
    assert total < 4 * reading, f"{total:.2f} s, reading alone {reading:.2f} s"


HOLD = """
import sys
from pathlib import Path
from fulgurite.runs.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_has_locked_is_running(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "a", [], None, status="running")
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        [held] = read_runs([folder])
        assert (held.status, held.reason) == ("running", "")
        process.communicate("")
    [left] = read_runs([folder])
    assert left.status == "killed"
