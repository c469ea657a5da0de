"""A run or a sweep of another origin, unpacked and resumed, writes to no file elsewhere and moves no folder."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.engine.saved_run import load_run
from fulgurite.reporting import report_cli, runs_cli
from fulgurite.reporting.sweep_analysis import analyse_sweep
from fulgurite.reporting.sweep_summary import conclude_sweep
from fulgurite.reporting.tables import FORMATS
from fulgurite.resume.plan import resume_in_place
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.runs.layout import LOCK_FILE
from fulgurite.runs.lock import run_lock
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint
from fulgurite.runs.sweep_ledger import GRID, LEDGER, append_event
from fulgurite.sweeps.jobs import NEW, Job
from fulgurite.sweeps.resume import find_sweep, job_folder, restore_job_states


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make a run directory beside a file of the user."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "killed"}')
    (folder / ".hydra/config.yaml").write_text("seed: 1\n")
    (tmp_path / "precious").write_text("canary")
    return folder


@pytest.mark.parametrize("name", [LOCK_FILE, "train.log", "metrics.csv", "sweep.jsonl"])
@pytest.mark.parametrize("target", ["precious", "made"])
def test_a_file_that_is_a_link_to_another_place_is_refused(name: str, target: str, run: Path) -> None:
    (run / name).symlink_to(run.parent / target)
    said = rf"^{run}/{re.escape(name)}: is a link to {run.parent}/{target}, outside of the run directory\. Remove it\.$"
    with pytest.raises(UserError, match=said), run_lock(run):
        pass
    with pytest.raises(UserError, match=said):
        resume_in_place(OmegaConf.create({}), OmegaConf.create({}), RunDirectory.of(run), is_named=True)
    assert (run.parent / "precious").read_text() == "canary"
    assert not (run.parent / "made").exists()


def test_links_within_a_run_and_linked_folders_stay(run: Path) -> None:
    (run / "newest.json").symlink_to("run.json")
    (run / "checkpoints").symlink_to(run.parent, target_is_directory=True)
    with run_lock(run):
        assert (run / LOCK_FILE).is_file()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n", "aliases expand"),
        ("a0: x\n", "interpolations expand"),
    ],
    ids=["aliases", "interpolations"],
)
def test_a_saved_config_that_multiplies_is_refused(config: str, said: str, run: Path) -> None:
    if "&" in config:
        config += "".join(f"b{n}: &b{n} [{', '.join(['*b' + str(n - 1) if n else '*a'] * 10)}]\n" for n in range(6))
    else:
        config += "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 30))
    (run / ".hydra/config.yaml").write_text(config)
    with pytest.raises(UserError, match=rf"{said} to .* values"):
        resume_in_place(OmegaConf.create({}), OmegaConf.create({}), RunDirectory.of(run), is_named=True)


def hostile_sweep(tmp_path: Path, folder: str) -> Path:
    """Leave a sweep whose ledger has a folder for its failed job."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    append_event(sweep, GRID, jobs=[{"job": 0, "key": "a", "words": ["seed=1"]}])
    append_event(sweep, "started", job=0, key="a", words=["seed=1"], folder=folder, pid=1)
    append_event(sweep, "failed", job=0, key="a", reason="x", exit_code=1)
    return sweep


@pytest.mark.parametrize("folder", ["../precious", "/", "{tmp}/precious", "link", ".", "0/../../precious"])
def test_a_ledger_names_no_folder_outside_of_its_sweep(folder: str, tmp_path: Path) -> None:
    """A failed job that is run again has its folder moved, a killed one is resumed in it."""
    (tmp_path / "precious").mkdir()
    sweep = hostile_sweep(tmp_path, folder.format(tmp=tmp_path))
    (sweep / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=rf"^sweep\.resume={sweep}: {LEDGER} has \S+ for job 0, outside of the sweep"):
        restore_job_states([Job(0, "a", ("seed=1",), state=NEW)], sweep)


def test_a_job_whose_own_run_is_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/run.json").write_text(json.dumps({"sweep": {"dir": str(tmp_path / "sweep"), "job": 3}}))
    assert job_folder(tmp_path / "sweep", str(tmp_path / "elsewhere"), 3) == tmp_path / "elsewhere"
    with pytest.raises(UserError, match="outside of the sweep"):
        job_folder(tmp_path / "sweep", str(tmp_path / "elsewhere"), 4)


KINDS = ("pipe", "device", "large")
CONFIG, OVERRIDES = ".hydra/config.yaml", ".hydra/overrides.yaml"


def make_odd(kind: str, path: Path) -> None:
    """Put a pipe, a device or a file of a terabyte in place of a file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)


@pytest.fixture
def patience() -> Iterator[None]:
    """End a test that waits at a pipe or reads without end; each one takes milliseconds."""

    def end(*_: object) -> None:
        pytest.fail("read without end")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Make a sweep of two jobs."""
    for number in "01":
        folder = tmp_path / "sweep" / number
        (folder / ".hydra").mkdir(parents=True)
        record = {"status": "killed" if number == "0" else "done", "start": "2026-01-01T00:00:00+00:00"}
        texts = {"run.json": json.dumps(record), "results.json": '{"metrics": {"val/acc": 0.5}}'}
        texts |= {"metrics.csv": "step,val/acc\n1,0.5\n", CONFIG: "monitor: val/acc\n", OVERRIDES: f"- seed={number}\n"}
        for name, text in texts.items():
            (folder / name).write_text(text)
    return tmp_path / "sweep"


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.json", "results.json", "metrics.csv", OVERRIDES, CONFIG])
def test_a_table_and_a_report_skip_what_is_no_file_of_a_run(
    name: str, kind: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_odd(kind, sweep / "0" / name)
    assert runs_cli.main([str(sweep)]) == 0
    runs = analyse_sweep(sweep).runs
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == len(runs) + 1 == (2 if name == "run.json" else 3)
    curves = [bool(run.curves(["val/acc"])) for run in runs]
    assert curves.count(True) == (1 if name in {"run.json", "metrics.csv"} else 2)
    said = [line for line in (shown.err + capsys.readouterr().err).splitlines() if line.startswith("warning")]
    assert said
    assert all(f"{sweep}/0" in line and name in line for line in said)
    assert all("not readable (is no regular file)" in line or "bytes, more than" in line for line in said)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train.log", "pipe"),  # nothing reads it, so it may have any size
        *product(["metrics.csv", CONFIG, OVERRIDES, ".hydra/hydra.yaml"], KINDS),
    ],
)
def test_a_resume_refuses_what_is_no_file_of_a_run(name: str, kind: str, run: Path) -> None:
    (run / OVERRIDES).write_text("[]\n")
    (run / ".hydra/hydra.yaml").write_text("hydra: {overrides: {hydra: []}}\n")
    make_odd(kind, run / name)

    def resume() -> None:
        expand_shorthands([f"resume={run}"], "train")
        resume_in_place(OmegaConf.create({}), OmegaConf.create({}), RunDirectory.of(run), is_named=True)

    with pytest.raises(UserError) as caught:
        resume()
    assert re.match(rf"(resume=)?{run}", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_that_is_no_file_is_none(kind: str, sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_odd(kind, sweep / LEDGER)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}, "overrides": {"hydra": []}}})
    with pytest.raises(UserError, match=rf"^sweep\.resume={sweep}: contains no {LEDGER} of a grid"):
        find_sweep(str(sweep), config)
    assert f"warning: {sweep}/{LEDGER}: skipped, the file is not readable (" in capsys.readouterr().err


STEER = "\x1b]0;evil\x07\x9b2J\r\n\u202ehost"


def test_no_text_of_a_run_steers_a_terminal_or_divides_a_line(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_text = dict.fromkeys(("status", "task_name", "start", "host"), STEER) | {"tags": [STEER], "reason": STEER}
    for number, name in enumerate((f"2{STEER}", f"3{STEER}")):
        (sweep / str(number)).rename(sweep / name)
        record = {**of_text, "status": "done"} if number else of_text
        (sweep / name / "run.json").write_text(json.dumps({**record, "sweep": {"dir": "x", "job": number}}))
        (sweep / name / "results.json").write_text(json.dumps({"metrics": {f"val/{STEER}": number, "val/acc": 1.0}}))
        (sweep / name / OVERRIDES).write_text(json.dumps([f"+model.note='{number}{STEER}'", f"+x='{STEER}'"]))
        (sweep / name / ".hydra/config.yaml").write_text(json.dumps({"monitor": f"val/{STEER}"}))
    (sweep / f"4{STEER}").mkdir()
    (sweep / f"4{STEER}/run.json").write_text("{")
    monkeypatch.setattr("fulgurite.reporting.plots.draw_all", lambda _: {})
    for file_format in FORMATS:
        for show in ("runs", "sweeps"):
            assert runs_cli.main([str(sweep), "--format", file_format, "--show", show]) == 0
    assert runs_cli.main([str(sweep), "--sort", "none"]) == 2
    assert report_cli.main([str(sweep)]) == 0
    (sweep / f"3{STEER}" / OVERRIDES).write_text(json.dumps([f"+{STEER}={STEER}"]))
    (sweep / f"2{STEER}" / OVERRIDES).write_text(json.dumps([f"+{STEER}={STEER}2"]))
    assert report_cli.main([str(sweep)]) == 0
    conclude_sweep(sweep)
    written = [(sweep / name).read_text() for name in ("report.html", "best.yaml", "summary.csv")]
    shown = capsys.readouterr()
    assert f"warning: {sweep}/best.yaml: not written, Hydra cannot read the overrides of {sweep}/3" in shown.err
    for text in (shown.out, shown.err, *written):
        assert "evil" in text
        assert [line for line in text.split("\n") if {*"\x1b\x07\x9b\r\u202e"} & {*line}] == []
        assert not re.search(r"^.?host", text, re.MULTILINE)


@pytest.mark.parametrize("weights", ["{tmp}/other.ckpt", "../other.ckpt", "checkpoints/link.ckpt"])
def test_the_run_of_another_user_names_no_checkpoint_elsewhere(
    weights: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.parent / "other.ckpt").write_text("")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/link.ckpt").symlink_to(run.parent / "other.ckpt")
    (run / OVERRIDES).write_text("[]\n")
    (run / ".hydra/hydra.yaml").write_text("hydra: {overrides: {hydra: []}}\n")
    (run / ".hydra/config.yaml").write_text(
        "model: {_target_: torch.nn.Identity}\npaths: {output_dir: x, work_dir: x}\n"
    )
    (run / "results.json").write_text(json.dumps({"weights": weights.format(tmp=run.parent)}))
    assert any("other.ckpt" in text or "link.ckpt" in text for text in expand_shorthands([f"run={run}"], "eval"))
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    said = rf"ckpt: is outside of {run}, a run of another user that names it as its checkpoint\. .* trust=\[{run}\]\.$"
    with pytest.raises(UserError, match=said):
        expand_shorthands([f"run={run}"], "eval")
    with pytest.raises(UserError, match=said):
        load_run(run).model()
    assert expand_shorthands([f"run={run}", f"trust=[{run}]"], "eval")


@pytest.mark.parametrize("weights", [[1], {"a": 1}, 5])
def test_weights_of_another_type_are_none(weights: object, run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").write_text("")
    (run / "results.json").write_text(json.dumps({"weights": weights}))
    assert best_checkpoint(RunDirectory(run)) == run / "checkpoints/last.ckpt"
