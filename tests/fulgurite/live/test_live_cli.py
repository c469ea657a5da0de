"""`python -m fulgurite live` writes whole files, and reports what the run did."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from fulgurite.__main__ import main as fulgurite
from fulgurite.live.document import live_cli
from fulgurite.live.document.history import Status, read_entries, read_status
from fulgurite.runs.lock import is_locked
from tests.support.cli import WarmProcess
from tests.support.live import until
from tests.support.project import ROOT

PAGE = (ROOT / "docs/configuration.md").read_text()
SECTION = PAGE.partition("## Changing a run while it trains")[2].partition("\n## ")[0]


def answer(folder: Path, result: str, *reasons: str) -> Callable[[], None]:
    """Return a function that answers to the next change of a run's document, as the run would."""
    seen = (folder / "live.yaml").read_bytes() if (folder / "live.yaml").is_file() else b""

    def reply() -> None:
        import hashlib

        data = until(lambda: (text := (folder / "live.yaml").read_bytes()) != seen and text, 5)
        status = Status(sources=[str(folder / "live.yaml")], result=result, step=7)
        status.version = hashlib.sha256(data).hexdigest()[:16]
        status.refused = {"reasons": list(reasons)} if reasons else None
        status.document = yaml.safe_load(data)
        status.write(folder)

    return reply


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the directory of a run that reads its own file."""
    path = tmp_path / "logs/train/runs/one"
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra/overrides.yaml").write_text("[]\n")
    (path / "run.json").write_text(json.dumps({"status": "running", "start": "2030-01-01T00:00:00+00:00"}))
    (path / "live.yaml").write_text("{}\n")
    Status(sources=[str(path / "live.yaml")]).write(path)
    return path


def live(folder: Path, *words: str, reply: Callable[[], None] | None = None) -> int:
    """Run a command on a run that another process has locked, as one that trains."""
    thread = threading.Thread(target=reply or (lambda: None))
    thread.start()
    with patch.object(live_cli, "is_locked", lambda _: True):
        code = fulgurite(["live", *words, "--run", str(folder)])
    thread.join()
    return code


def test_values_are_set_kept_replaced_and_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live(folder, "set", "lr_scale=1e-1", "model.name=wide", "model.sizes=[1,2]", "--wait", "0") == 0
    assert "written. The run has not read it yet" in capsys.readouterr().out
    assert live(folder, "set", "lr=0.5", "model.name=null", "--wait", "0") == 0  # lr and lr_scale exclude each other
    assert yaml.safe_load((folder / "live.yaml").read_text()) == {"model.sizes": [1, 2], "lr": 0.5}
    assert live(folder, "set", "lr=null", "model.sizes=null", "--wait", "0", "--json") == 0
    assert (folder / "live.yaml").read_text() == "{}\n"
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["document"] == {}


def test_a_run_below_the_working_directory_is_named_without_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parents[3])
    assert live(folder, "set", "lr_scale=0.1", reply=answer(folder, "applied")) == 0
    assert capsys.readouterr().out == "logs/train/runs/one: applied before step 7\n"
    assert live(folder, "get") == 0
    assert capsys.readouterr().out == "logs/train/runs/one: watching, epoch 0, step 7\n  lr_scale: 0.1\n"


def test_commands_count_from_what_the_run_has_seen(folder: Path) -> None:
    for _ in range(2):
        assert live(folder, "stop", "--after", "epoch", "--wait", "0") == 0
    assert live(folder, "checkpoint", "--wait", "0") == 0
    assert yaml.safe_load((folder / "live.yaml").read_text()) == {"stop_after_epoch": 2, "checkpoint": 1}
    (folder / "live.yaml").unlink()
    Status(sources=[str(folder / "live.yaml")], document={"stop_after_epoch": 2}).write(folder)
    assert live(folder, "stop", "--after", "epoch", "--wait", "0") == 0
    assert yaml.safe_load((folder / "live.yaml").read_text()) == {"stop_after_epoch": 3}


def test_a_key_that_no_run_knows_is_removed_where_the_file_has_it(folder: Path) -> None:
    (folder / "live.yaml").write_text("lr_scal: 1\npatience: 3\n")
    assert live(folder, "set", "lr_scal=null", "--wait", "0") == 0
    assert (folder / "live.yaml").read_text() == "patience: 3\n"


def test_the_answer_of_the_run_is_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live(folder, "set", "lr_scale=0.1", reply=answer(folder, "applied")) == 0
    assert "applied before step 7" in capsys.readouterr().out
    before = (folder / "live.yaml").read_text()
    refusal = answer(folder, "refused", "max_epochs=1: the run is in epoch 3.", "and more")
    assert live(folder, "set", "max_epochs=1", reply=refusal) == 2
    error = "error: refused: max_epochs=1: the run is in epoch 3.\nerror: refused: and more\n"
    assert capsys.readouterr().err == error
    assert (folder / "live.yaml").read_text() == before  # the next edit is judged by itself


WRONG = {
    "set": "set: names no value. Pass e.g. set lr_scale=0.1.",
    "set lr_scale": "lr_scale: is not key=value. Pass e.g. lr_scale=0.1.",
    "set lr_scal=1": "lr_scal=1: is not a live key. Did you mean 'lr_scale'?",
    "set lr_scale=0": "lr_scale=0: is out of range. Set a number above 0.",
    "set lr_scale=[1": "lr_scale=[1: is not valid YAML (did not find expected ',' or ']'). Pass a value",
    "set lr_scale=": "lr_scale=: has no value. Pass lr_scale=null to remove the key",
    "set lr_scale=1 lr_scale=2": "lr_scale: is given twice. Write it once.",
    "set lr=1 lr_scale=2": "lr: excludes lr_scale. Set one of them.",
    "set lr_scale=1\nlr: 2": "lr_scale: has several lines. Pass one value.",
    f"set max_steps=1{400 * '0'}": "max_steps: is a number of more than 64 bits.",
    "set lr_scal=null": "lr_scal=null: is not a live key. Did you mean 'lr_scale'?",
    "get lr_scale": "lr_scale: get takes no values. Pass --run <run directory>.",
    "get lr_scale=1": "lr_scale=1: get takes no values. Pass --run <run directory>.",
    "stp": "stp",
    "stop --after batch": "--after",
    "get --wait long": "--wait=long: not a number of seconds. Pass e.g. --wait 10.",
    "get --rn last": "--rn: not an option",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_command_writes_nothing(words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live(folder, *words.split(" ")) == 2
    error = capsys.readouterr().err
    assert WRONG[words] in error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert (folder / "live.yaml").read_text() == "{}\n"


def test_an_edit_that_another_command_adds_to_is_answered_with_it(folder: Path, capsys: Any) -> None:
    def add() -> None:
        path = folder / "live.yaml"
        until(lambda: "lr_scale" in path.read_text(), 5)
        answer(folder, "applied")  # of the first, which the run skips
        reply = answer(folder, "applied")
        path.write_text("lr_scale: 0.5\npatience: 3\n")
        reply()

    assert live(folder, "set", "lr_scale=0.5", "--wait", "60", reply=add) == 0
    assert "applied before step 7" in capsys.readouterr().out


def test_a_document_that_cannot_be_replaced_is_one_line(folder: Path, capsys: Any) -> None:
    path = folder / "live.yaml"
    path.write_bytes(b"#" * (8 << 20) + b"\n")
    assert live(folder, "set", "patience=1", "--wait", "0") == 2
    path.unlink()
    path.mkdir()
    assert live(folder, "set", "patience=1", "--wait", "0") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {path}: is not readable (has 8388609 bytes, more than 8388608). Correct or remove it."
    assert second == f"error: {path}: cannot be written (Is a directory). Correct or remove it."


def test_a_command_to_a_run_that_does_not_train_or_starts_is_refused(folder: Path, capsys: Any) -> None:
    assert fulgurite(["live", "checkpoint", "--run", str(folder)]) == 2
    assert "does not train now. Resume it first" in capsys.readouterr().err
    assert fulgurite(["live", "set", "patience=2", "stop_after_step=1", "--run", str(folder)]) == 2
    assert "stop_after_step: " in capsys.readouterr().err
    assert (folder / "live.yaml").read_text() == "{}\n"
    assert live(folder, "checkpoint", reply=answer(folder, "unchanged")) == 2
    assert "the run was starting, and took no command yet. Repeat it." in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"document": [1]}, {"sources": 5}, {"refused": "no"}])
def test_a_status_that_no_run_writes_is_one_line(change: dict[str, Any], folder: Path, capsys: Any) -> None:
    path = folder / "live.status.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    assert live(folder, "get") == 2
    assert "is not a status. The run writes it anew." in capsys.readouterr().err


def test_a_history_without_edits_is_an_empty_list(folder: Path, capsys: Any) -> None:
    assert live(folder, "history", "--json") == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("line", ['"refused"', '["refused"]', '{"refused": 5}'])
def test_a_history_that_no_run_writes_is_one_line(line: str, folder: Path, capsys: Any) -> None:
    (folder / "live.jsonl").write_text(f"{line}\n")
    assert live(folder, "history") == 2
    assert "line 1 is not an edit" in capsys.readouterr().err


def test_a_run_that_reads_elsewhere_or_takes_no_edits_is_named(folder: Path, capsys: Any) -> None:
    Status(sources=["etcd://host:2379/run"]).write(folder)
    assert live(folder, "set", "lr_scale=0.1") == 2
    assert "this run reads etcd://host:2379/run. Change the document there." in capsys.readouterr().err
    (folder / "live.status.yaml").unlink()
    assert live(folder, "get") == 2
    assert "Start it with callbacks=[default,live]." in capsys.readouterr().err
    (folder / "live.status.yaml").write_text("[\n")
    assert live(folder, "get") == 2
    assert "is not readable" in capsys.readouterr().err


def test_last_is_the_newest_run_that_trains(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(live_cli, "project_root", lambda: tmp_path)
    newer = folder.with_name("two")
    newer.mkdir()
    (newer / "run.json").write_text(json.dumps({"start": "2031-01-01T00:00:00+00:00"}))
    assert live_cli.find_run("last") == newer
    monkeypatch.setattr(live_cli, "is_locked", lambda run: run == folder)
    assert live_cli.find_run("last") == folder


def commands_of_the_page() -> list[list[str]]:
    """Return the words of each command in the transcript and the text of the section."""
    lines = re.findall(r"^\$ python -m fulgurite (live .*)$", SECTION, re.MULTILINE)
    lines += re.findall(r"`python -m fulgurite (live [^`]*)`", SECTION)
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
def test_the_commands_of_the_page_change_a_run_that_is_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live_cli, "project_root", lambda: tmp_path)
    [start] = re.findall(r"^python src/train.py (.*)$", SECTION, re.MULTILINE)
    arguments = [start, "trainer.max_epochs=2", "extras.print_config=false", f"paths.log_dir={tmp_path}/logs"]
    arguments += ["callbacks.live.poll_seconds=0.05", "callbacks.last_checkpoint.every_n_train_steps=5"]
    first = WarmProcess("train", [*arguments, "+trainer.limit_train_batches=20"], tmp_path / "first")
    until(lambda: list(tmp_path.glob("logs/train/runs/*/live.status.yaml")), 120)
    run = live_cli.find_run("last")
    codes = {}
    *commands, stop = commands_of_the_page()
    for words in commands:
        codes[" ".join(words)] = fulgurite(words)
    assert {words: code for words, code in codes.items() if code} == {
        "live set lr_scal=0.5": 2,
        "live set model.width=3": 2,
    }
    assert "refused: model.width: Classifier has no on_live_change(changed)" in capsys.readouterr().err
    until(lambda: read_status(run)["epoch"] is not None and list(run.glob("checkpoints/live-*.ckpt")), 60)
    until(lambda: _epoch(run) >= 3, 120)  # beyond the two of the config
    os.kill(first.pid, signal.SIGKILL)
    first.process.join()
    resumed = WarmProcess("train", [f"resume={run}"], tmp_path / "second")
    try:
        until(lambda: is_locked(run) and "live: in force: max_epochs=200" in (run / "train.log").read_text(), 120)
        assert fulgurite(stop) == 0
    except BaseException:
        resumed.process.kill()
        raise
    done = resumed.wait(240)
    assert done.returncode == 0, done.stderr
    assert "Results" in done.stdout
    document = read_status(run)["document"]
    assert document == {"max_epochs": 200, "checkpoint": 1, "validate": 1, "stop_after_epoch": 1}
    assert len([entry for entry in read_entries(run / "live.jsonl") if "refused" in entry]) == 1


def _epoch(run: Path) -> int:
    rows = (run / "metrics.csv").read_text().splitlines() if (run / "metrics.csv").is_file() else []
    return int(rows[-1].partition(",")[0] or 0) if len(rows) > 1 else 0
