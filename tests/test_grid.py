"""A grid that goes on: checked whole first, told in a ledger, each job done exactly once whatever ends the sweep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from src.base.errors import ConfigError, UserError
from src.base.root import ROOT, prepare_environment
from src.run.compat import VERSION_BASE
from src.run.sweeps.code import CodeState
from src.run.sweeps.going_on import find_sweep, take_up
from src.run.sweeps.jobs import Job, check, split
from src.run.sweeps.ledger import LEDGER, append, key_of, read
from tests.doors import Started, read_json, run_door
from tests.test_resume import QUICK, rows_of, weights_at


def words(tmp_path: Path, **trouble: str) -> list[str]:
    """Return the command of a grid of six seeds, each a training of six steps, with what befalls some of them."""
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    what = ", ".join(f"{seed}: {kind}" for seed, kind in trouble.items())
    callback = (
        f"{{_target_: tests.passing_trouble.TroubleOnce, what: {{{what}}}, seed: '${{seed}}', step: 4, marks: {marks}}}"
    )
    return [
        "-m",
        *QUICK,
        "seed=1,2,3,4,5,6",
        "trainer.max_epochs=2",
        "test=false",
        f"+callbacks.trouble={callback}",
        "extras.allowed_targets=[tests]",
    ]


def start(tmp_path: Path, given: list[str], *more: str) -> Any:
    """Run a sweep to its end."""
    return Started("train", [*given, *more, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said").end(240)


def events(sweep: Path, *names: str) -> list[tuple[str, int]]:
    """Return the ledger's events of some kinds, with the number of the job."""
    return [(event["event"], event["job"]) for event in read(sweep) if event["event"] in names]


def only_sweep(tmp_path: Path) -> Path:
    """Return the one sweep directory."""
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    return sweep


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_jobs_end_badly_for_three_reasons_and_exactly_those_are_run_again(tmp_path: Path) -> None:
    given = words(tmp_path, s2="raise", s4="spoil", s6="SIGTERM")
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = [read_json(sweep / str(job) / "run.json") for job in range(6)]
    assert [record["status"] for record in records] == ["done", "failed", "done", "failed", "done", "killed"]
    assert records[1]["reason"] == "ValueError: a fault that passes"
    assert "the weights hold NaN or infinity" in records[3]["reason"]
    assert records[5]["reason"] == "terminated (SIGTERM), saved at step 4 in checkpoints/last.ckpt"
    told = {event["job"]: event for event in read(sweep) if event["event"] in {"failed", "killed"}}
    assert {job: (event["event"], event["reason"]) for job, event in told.items()} == {
        job: (records[job]["status"], records[job]["reason"]) for job in (1, 3, 5)
    }
    assert first.returncode == 143
    assert f"job 1 failed: {records[1]['reason']}\n" in first.stdout
    assert f"0 not started; to go on: the same command with sweep.resume={sweep}" in first.stderr

    before = len(read(sweep))
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    assert "3 done, job 5 (seed=6) to go on, jobs 1, 3 to be tried again" in again.stderr
    then = [(event["event"], event.get("job")) for event in read(sweep)[before:]]
    started = [job for event, job in then if event == "started"]
    assert started == [1, 3, 5]
    assert [job for event, job in then if event == "done"] == [1, 3, 5]
    assert sorted(path.name for path in sweep.iterdir() if path.name.isdigit()) == [*"012345"]
    assert [read_json(sweep / str(job) / "run.json")["status"] for job in range(6)] == ["done"] * 6
    assert [entry["step"] for entry in read_json(sweep / "5/run.json")["resumed"]] == [4]
    assert read_json(sweep / "earlier/1-1/run.json")["reason"] == "ValueError: a fault that passes"
    summary = (sweep / "summary.csv").read_text().splitlines()
    assert summary[1].startswith(",6,0,"), "seeds are folded, and what a job went on from is no value of the grid"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sweep_killed_in_its_third_job_goes_on_to_exactly_six(tmp_path: Path) -> None:
    given = words(tmp_path, s3="SIGKILL")
    assert start(tmp_path, given).returncode == -signal.SIGKILL
    sweep = only_sweep(tmp_path)
    assert events(sweep, "started", "done", "killed") == [
        *(("started", 0), ("done", 0), ("started", 1), ("done", 1), ("started", 2)),
    ]
    again = start(tmp_path, given, "sweep.resume=last")
    assert again.returncode == 0, again.stderr
    assert Counter(events(sweep, "done")) == {("done", job): 1 for job in range(6)}
    assert ("killed", 2) in events(sweep, "killed")
    keys = [event["key"] for event in read(sweep) if event["event"] == "done"]
    assert len(set(keys)) == 6
    assert [read_json(sweep / str(job) / "run.json")["seed"] for job in range(6)] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == [*"012345"]

    # the killed job ended as one that was never killed
    assert [entry["step"] for entry in read_json(sweep / "2/run.json")["resumed"]] == [3]
    straight = tmp_path / "straight"
    alone = [word.replace("seed=1,2,3,4,5,6", "seed=3") for word in given if word != "-m"]
    assert Started("train", [*alone, f"hydra.run.dir={straight}"], tmp_path / "alone").end().returncode == 0
    assert weights_at(sweep / "2/checkpoints/last.ckpt") == weights_at(straight / "checkpoints/last.ckpt")
    assert rows_of(sweep / "2") == rows_of(straight)

    done = start(tmp_path, given, "sweep.resume=last")
    assert done.returncode == 0
    assert len(events(sweep, "started")) == 7, "nothing is left to do"


@contextmanager
def planned(*given: str) -> Iterator[tuple[list[Job], DictConfig, ConfigLoaderImpl]]:
    """Give the jobs of a command line, the sweep's config and Hydra's loader."""
    prepare_environment()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        config = loader.load_configuration("train", list(given), RunMode.MULTIRUN)
        yield split(given, loader), config, loader


def findings(*given: str) -> list[str]:
    """Return what is said of a sweep before its first job."""
    with planned(*given) as (jobs, config, loader), pytest.raises(ConfigError) as refused:
        check(jobs, config, loader, lambda job, cfg: ())
    return refused.value.findings


def test_every_job_is_checked_and_each_finding_names_the_jobs_that_have_it() -> None:
    assert findings("data.batch_size=32,0", "seed=1,-1") == [
        "jobs 1, 3 (seed=-1): command line: seed=-1: must be between 0 and 4294967295",
        "jobs 2, 3 (data.batch_size=0): command line: data.batch_size=0: must be 1 or more",
    ]


def test_a_finding_that_all_jobs_have_is_told_once_as_for_one_run() -> None:
    [line] = findings("seed=1,2", "train=maybe")
    assert line.startswith("command line: train=maybe: must be ")


def test_options_that_hydra_refuses_are_told_beside_what_is_wrong_with_other_jobs() -> None:
    typo, size = findings("trainer=cpu,gpux", "data.batch_size=0,8")
    assert "there is no trainer 'gpux'; did you mean 'gpu'?" in typo
    assert size == "job 0 (trainer=cpu data.batch_size=0): command line: data.batch_size=0: must be 1 or more"


def test_words_for_the_sweep_are_no_values_of_its_jobs_and_equal_jobs_stay_two() -> None:
    with planned("seed=null,null", "sweep.resume=null", "test=false") as (jobs, _, _):
        assert [job.words for job in jobs] == [("seed=null", "test=False")] * 2
        assert [job.key for job in jobs] == [key_of(jobs[0].words), f"{key_of(jobs[0].words)}-2"]


def test_a_pattern_that_matches_nothing_is_no_sweep() -> None:
    with (
        pytest.raises(UserError, match=r"experiment=glob\(nothing\*\): matches nothing"),
        planned("experiment=glob(nothing*)"),
    ):
        pass


def test_a_ledger_goes_on_behind_a_line_that_a_kill_has_torn(tmp_path: Path) -> None:
    append(tmp_path, "started", job=0, key="a")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"event": "done", "jo')
    append(tmp_path, "started", job=1, key="b")
    assert [(event["event"], event["job"]) for event in read(tmp_path)] == [("started", 0), ("started", 1)]


def plan(folder: Path, jobs: list[Job]) -> None:
    """Write the plan of an earlier start."""
    folder.mkdir(parents=True, exist_ok=True)
    append(folder, "plan", jobs=[{"job": j.number, "key": j.key, "words": list(j.words)} for j in jobs], code="")


def test_jobs_keep_their_numbers_whatever_the_order_of_the_words(tmp_path: Path) -> None:
    with planned("seed=1,2", "test=true,false") as (jobs, _, _):
        plan(tmp_path, jobs)
    append(tmp_path, "failed", job=2, key=jobs[2].key, reason="no memory")
    with planned("test=false,true", "seed=2,1") as (again, _, _):
        take_up(again, tmp_path)
    assert [(job.number, set(job.words), job.state) for job in again] == [
        (3, {"seed=2", "test=False"}, "new"),
        (1, {"seed=1", "test=False"}, "new"),
        (2, {"seed=2", "test=True"}, "failed"),
        (0, {"seed=1", "test=True"}, "new"),
    ]
    assert again[2].reason == "no memory"


def test_another_grid_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    with planned("seed=1,2", "trainer.max_epochs=5") as (jobs, _, _):
        plan(tmp_path, jobs)
    with planned("seed=1,2,3", "trainer.max_epochs=6") as (other, _, _), pytest.raises(ConfigError) as refused:
        take_up(other, tmp_path)
    assert "the grid is another one: 3 jobs instead of 2; only now seed=3 trainer.max_epochs=6; " in str(refused.value)
    assert "only then trainer.max_epochs=5; give the same values" in str(refused.value)


def test_last_is_the_sweep_that_was_written_to_last(tmp_path: Path) -> None:
    sweeps = tmp_path / "train/multiruns"
    with planned("seed=1,2", f"paths.log_dir={tmp_path}") as (jobs, config, _):
        with pytest.raises(UserError, match=r"holds no sweep; start one without sweep\.resume"):
            find_sweep("last", config)
        for name in ("b", "a"):
            plan(sweeps / name, jobs)
        (sweeps / "search").mkdir()
        append(sweeps / "search", "started", job=0, key="of a search: it has no plan")
        assert find_sweep("last", config) == sweeps / "a"
        with pytest.raises(UserError, match=r"holds no sweep\.jsonl of a grid; name a sweep"):
            find_sweep(str(sweeps / "search"), config)


def test_files_that_change_while_a_sweep_runs_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "src/a.py").write_text("1")
    state = CodeState(tmp_path)
    before = state.digest
    assert state.changes() == []
    (tmp_path / "src/a.py").write_text("2")
    (tmp_path / "configs/model/b.yaml").write_text("c: 1")
    assert state.changes() == ["configs/model/b.yaml", "src/a.py"]
    assert state.changes() == []
    assert state.digest != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("sweep.resume=last",), "error: sweep.resume=last: is for sweeps; add -m\n"),
        (
            ("-m", "hparams_search=mnist_optuna", "sweep.resume=last"),
            "error: sweep.resume=last: is for grids; a search goes on through its hydra.sweeper.storage\n",
        ),
        (("-m", "seed=1,2", "data.batch_size=0,8"), "error: jobs 0, 2 (data.batch_size=0): command line: "),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_folder_is_made(
    tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    end = start(tmp_path, list(given))
    assert end.returncode == 2, end.stderr
    assert end.stderr.startswith(said)
    assert not (tmp_path / "logs").exists()


def test_a_dry_run_shows_the_jobs_and_makes_no_folder(tmp_path: Path) -> None:
    end = start(tmp_path, ["-m", "--dry-run", "seed=1,2", "trainer.max_epochs=3,4", "test=false"])
    assert end.returncode == 0, end.stderr
    rows = [line.split() for line in end.stdout.splitlines() if "to start" in line]
    assert [row[1:5] for row in rows][2] == ["2", "│", "seed=2", "trainer.max_epochs=3"]
    assert len(rows) == 4
    assert "all      test=False" in end.stdout
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_a_sweep_may_stop_at_its_first_failure_and_say_later_that_it_has_failed(tmp_path: Path) -> None:
    given = words(tmp_path, s2="raise")
    end = start(tmp_path, given, "sweep.on_error=stop")
    sweep = only_sweep(tmp_path)
    assert end.returncode == 1
    assert "sweep stopped by sweep.on_error=stop: 4 jobs not started\n" in end.stderr
    assert events(sweep, "done", "failed") == [("done", 0), ("failed", 1)]
    again = start(tmp_path, given, f"sweep.resume={sweep}")
    assert again.returncode == 1
    assert events(sweep, "done", "failed")[2:] == [("done", job) for job in (2, 3, 4, 5)]
    told = "error: job 1 failed: ValueError: a fault that passes; sweep.retry_failed=true tries again\n"
    assert again.stderr.endswith(told)
    with_same_folder = start(tmp_path, given, f"hydra.sweep.dir={sweep}")
    assert with_same_folder.returncode == 2
    assert f"holds a sweep; go on with it by sweep.resume={sweep}" in with_same_folder.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_jobs_of_two_processes_share_their_values_and_one_folder_and_go_on(tmp_path: Path) -> None:
    given = [word.replace("=1,2,3,4,5,6", "=1,2") for word in words(tmp_path, s2="SIGKILL")]
    first = run_door("train", *given, "trainer=ddp_sim", logs=tmp_path / "logs")
    assert first.returncode == -signal.SIGKILL
    again = run_door("train", *given, "trainer=ddp_sim", "sweep.resume=last", logs=tmp_path / "logs")
    assert again.returncode == 0, again.stderr
    sweep = only_sweep(tmp_path)
    assert events(sweep, "started", "done") == [
        ("started", 0),
        ("done", 0),
        ("started", 1),
        ("started", 1),
        ("done", 1),
    ]
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert [read_json(sweep / job / "run.json")["ranks"] for job in "01"] == [2, 2]
    assert [entry["step"] for entry in read_json(sweep / "1/run.json")["resumed"]] == [3]
    marks = sorted(path.name for path in (tmp_path / "marks").iterdir())
    assert marks == ["1-rank0", "1-rank1", "2", "2-rank0", "2-rank1"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_file_that_changes_while_a_sweep_runs_is_told_and_noted(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("src", "configs", "data/mnist_sample", ".project-root"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, project / name)
    given = ["-m", *QUICK, "seed=1,2", "test=false", "trainer.max_epochs=1"]
    process = subprocess.Popen(
        [sys.executable, "src/train.py", *given],
        cwd=project,
        env={**os.environ, "PROJECT_ROOT": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(project.glob("logs/train/multiruns/*/0/run.json")):
        time.sleep(0.01)
    (project / "configs/model/mnist.yaml").write_text("net: [")
    _, said = process.communicate(timeout=120)
    [sweep] = (project / "logs/train/multiruns").iterdir()
    assert (
        "warning: sweep: changed while it runs: configs/model/mnist.yaml; jobs from 1 on may be run otherwise" in said
    )
    [changed] = [event for event in read(sweep) if event["event"] == "changed"]
    assert (changed["before"], changed["files"]) == (1, ["configs/model/mnist.yaml"])
    assert events(sweep, "done", "failed") == [("done", 0), ("failed", 1)]
    assert read(sweep)[-1]["reason"].startswith("cannot be composed any more: ")
    assert process.returncode == 2
