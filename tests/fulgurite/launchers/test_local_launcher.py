"""`hydra/launcher=local`: concurrent jobs in slots; none is lost, none survives the sweep."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext

from fulgurite.core.errors import ConfigError
from fulgurite.launchers.local_pool import PRELOADED
from fulgurite.launchers.slots import NUM_THREADS, VISIBLE_GPUS, allocate_slots, visible_gpus
from fulgurite.plugins.hydra_plugins.fulgurite.local import LocalLauncher
from fulgurite.runs.sweep_ledger import read_events
from fulgurite.sweeps.config_cache import ConfigCache
from fulgurite.sweeps.dispatch import run_jobs
from tests.conftest import SMALL
from tests.fulgurite.resume.test_resume import weights_at
from tests.fulgurite.sweeps.test_grid import planned
from tests.fulgurite.sweeps.test_sweep_resume import events, grid_command, only_sweep, start
from tests.support.cli import WarmProcess, read_json, run_cli
from tests.support.faults import processes_with
from tests.support.run_if import RunIf
from tests.support.slot_probe import nap

pytestmark = RunIf(path="/proc/self/status")  # fork, affinities and what a dead parent leaves are Linux's here
LOCAL = ("hydra/launcher=local", "hydra.launcher.slots=2")
LONG = (
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=40",
    "+trainer.limit_val_batches=2",
    "extras.print_config=false",
)
SEEN = (
    "extras.allowed_targets=[tests]",
    "+callbacks.seen={_target_: tests.support.slot_probe.SlotProbe, folder: '${paths.output_dir}'}",
)


def jobs_in(sweep: Path, name: str) -> list[Any]:
    """Return a file of each job, read as JSON, in the order of their numbers."""
    found = [path / name for path in sweep.iterdir() if path.name.isdigit()]
    return [read_json(path) for path in sorted(found, key=lambda path: int(path.parent.name)) if path.is_file()]


def test_jobs_use_separate_slots_and_share_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_GPUS, "5,GPU-7a")
    few = [
        "trainer=cpu",
        "test=false",
        "data.num_workers=1",
        "seed=1,2,3",
        "optimized_metric=val/loss",
        "+callbacks.seen.seconds=1",
    ]
    done = start(tmp_path, ["-m", *SMALL, *LOCAL, *SEEN, *few])
    assert done.returncode == 0, done.stderr
    sweep = only_sweep(tmp_path)
    places, records = jobs_in(sweep, "slot.json"), jobs_in(sweep, "run.json")
    cores = sorted(os.sched_getaffinity(0))
    halves = [cores[: len(cores) // 2], cores[len(cores) // 2 : len(cores) // 2 * 2]] if len(cores) > 1 else [cores] * 2
    assert [place["cores"] for place in places[:2]] == halves
    assert [place["gpus"] for place in places[:2]] == ["5", "GPU-7a"]
    assert places[2]["cores"] in halves, "the third has the place that was free first"
    assert [(place["threads"], place[NUM_THREADS]) for place in places] == [(1, "1")] * 3
    assert len({place["pid"] for place in places}) == 3
    assert all(place["group"] == place["pid"] == record["pid"] for place, record in zip(places, records, strict=True))
    assert [(place["trace"], place["left"]) for place in places] == [(None, [])] * 3
    assert events(sweep, "started", "done")[:2] in ([("started", 0), ("started", 1)], [("started", 1), ("started", 0)])
    losses = [found["metrics"]["val/loss"] for found in jobs_in(sweep, "results.json")]
    best = losses.index(min(losses))
    last = done.stderr.splitlines()[-1]
    assert last.endswith(f"3 of 3 done, 0 running, 0 failed, best val/loss {min(losses):.4g} (job {best})"), done.stderr
    assert "epoch 0/0" in (sweep / "1/console.log").read_text()
    assert "epoch 0/0" not in done.stdout + done.stderr
    assert sorted(events(sweep, "done")) == [("done", 0), ("done", 1), ("done", 2)]


@pytest.mark.slow
def test_results_are_bit_identical_to_hydras_own_launcher(tmp_path: Path) -> None:
    sweeps = []
    for name, launcher in (("one", ()), ("other", LOCAL)):
        done = start(tmp_path / name, ["-m", *SMALL, *launcher, "seed=1,2,3"])
        assert done.returncode == 0, done.stderr
        sweeps.append(only_sweep(tmp_path / name))
    one, other = sweeps
    assert jobs_in(one, "results.json") == jobs_in(other, "results.json")
    assert len(jobs_in(one, "results.json")) == 3
    for job in "012":
        assert weights_at(one / job / "checkpoints/last.ckpt") == weights_at(other / job / "checkpoints/last.ckpt")
    assert (one / "summary.csv").read_text() == (other / "summary.csv").read_text()
    assert [record["config_hash"] for record in jobs_in(one, "run.json")] == [
        record["config_hash"] for record in jobs_in(other, "run.json")
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_slots_take_about_half_the_time_of_one(tmp_path: Path) -> None:
    """Compare the time from the first nap to the last; `make bench ARGS=sweeps` times real training runs."""
    for module in PRELOADED:
        importlib.import_module(module)
    seconds: dict[str, float] = {}
    # no log handlers: one of the launchers runs its jobs in this process
    few = [*LOCAL, "hydra.job_logging.root=null", "hydra.hydra_logging.root=null", "hydra.mode=MULTIRUN"]
    launchers: list[tuple[str, Launcher]] = [("slots", LocalLauncher(slots=2)), ("serial", BasicLauncher())]
    for name, launcher in launchers:
        with planned(*few, f"paths.log_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}/{name}") as (_, config, loader):
            ConfigCache(loader)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            launcher.setup(hydra_context=context, task_function=nap, config=config)
            jobs = ((number, [f"seed={number}"]) for number in range(12))
            returned = {number: job.return_value for number, job in run_jobs(launcher, jobs)}
        assert returned == {number: float(number) for number in range(12)}
        naps = [json.loads((tmp_path / name / str(job) / "nap.json").read_text()) for job in range(12)]
        seconds[name] = max(end for _, end in naps) - min(begin for begin, _ in naps)
    assert seconds["slots"] <= 0.65 * seconds["serial"], seconds


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_failed_diverged_and_killed_jobs_do_not_stop_the_others_and_are_run_again(
    tmp_path: Path,
) -> None:
    given = [*grid_command(tmp_path, s2="raise", s4="spoil", s6="SIGKILL"), *LOCAL]
    first = start(tmp_path, given)
    sweep = only_sweep(tmp_path)
    records = jobs_in(sweep, "run.json")
    assert [record["status"] for record in records] == ["done", "failed", "done", "failed", "done", "killed"]
    assert [record["exit_code"] for record in records] == [0, 1, 0, 3, 0, 137]
    assert records[1]["reason"] == "ValueError: a fault that passes"
    assert "the weights contain NaN or infinity" in records[3]["reason"]
    assert records[5]["reason"] == "killed by SIGKILL (out of memory?)"
    told = {event["job"]: event for event in read_events(sweep) if event["event"] in {"failed", "killed"}}
    assert {job: (event["event"], event["reason"], event["key"]) for job, event in told.items()} == {
        job: (records[job]["status"], records[job]["reason"], read_events(sweep)[0]["jobs"][job]["key"])
        for job in (1, 3, 5)
    }
    assert first.returncode == 1, "the code of the first of them"
    assert "ValueError: a fault that passes" in (sweep / "1/console.log").read_text()
    assert "Traceback" not in first.stderr
    assert "Error executing job" not in first.stderr

    before = len(read_events(sweep))
    again = start(tmp_path, given, "sweep.resume=last", "sweep.retry_failed=true")
    assert again.returncode == 0, again.stderr
    then = [(event["event"], event.get("job")) for event in read_events(sweep)[before:]]
    assert [event for event, _ in then].count("started") == 3
    assert {job for event, job in then if event == "started"} == {1, 3, 5}
    assert {job for event, job in then if event == "done"} == {1, 3, 5}
    assert [record["status"] for record in jobs_in(sweep, "run.json")] == ["done"] * 6
    assert [entry["step"] for entry in read_json(sweep / "5/run.json")["resumed"]] == [3]


def under_way(tmp_path: Path, *more: str) -> tuple[WarmProcess, list[str]]:
    """Start a grid of four on two slots, return it when two jobs train, and the words it was started with."""
    hurry = f"+callbacks.seen.hurry={tmp_path}/hurry"
    given = ["-m", *LONG, *LOCAL, *SEEN, hurry, "test=false", "seed=1,2,3,4", *more, f"paths.log_dir={tmp_path}/logs"]
    sweep = WarmProcess("train", given, tmp_path / "first")
    within = time.monotonic() + 60
    while len(list(tmp_path.glob("logs/train/multiruns/*/*/slot.json"))) < 2:
        there = sweep.process.is_alive() and time.monotonic() < within
        assert there, (tmp_path / "first/err").read_text()
        time.sleep(0.05)
    return sweep, given


def living(pids: Sequence[int]) -> list[int]:
    """Return those of some processes that have not ended."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [
        pid
        for pid, stat in states.items()
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_sweep_saves_every_running_job_and_only_those_resume(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    first, given = under_way(tmp_path)
    os.kill(first.pid, number)
    ended = first.wait(60)
    sweep = only_sweep(tmp_path)
    assert ended.returncode == code, ended.stderr
    records = jobs_in(sweep, "run.json")
    assert [(record["status"], record["exit_code"]) for record in records] == [("killed", 143)] * 2
    assert living([record["pid"] for record in records]) == []
    saved = [read_json(sweep / job / "checkpoints/last.ckpt.json")["step"] for job in "01"]
    assert all(f"saved at step {step} in" in record["reason"] for step, record in zip(saved, records, strict=True))
    assert all(0 < step < 40 for step in saved)
    assert f"sweep stopped by {number.name}: 0 jobs done, job 0 killed, job 1 killed, 2 not started" in ended.stderr

    (tmp_path / "hurry").touch()
    again = WarmProcess("train", [*given, "sweep.resume=last"], tmp_path / "again").wait()
    assert again.returncode == 0, again.stderr
    records = jobs_in(sweep, "run.json")
    assert [record["status"] for record in records] == ["done"] * 4
    assert [[entry["step"] for entry in record["resumed"]] for record in records] == [[saved[0]], [saved[1]], [], []]
    assert sorted(events(sweep, "done")) == [("done", job) for job in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_of_a_killed_sweep_save_and_exit(tmp_path: Path) -> None:
    first, _ = under_way(tmp_path, "data.num_workers=1")
    sweep = only_sweep(tmp_path)
    pids = [record["pid"] for record in jobs_in(sweep, "run.json")]
    os.kill(first.pid, signal.SIGKILL)
    within = time.monotonic() + 20
    while living(pids) and time.monotonic() < within:
        time.sleep(0.05)
    assert living(pids) == []
    records = jobs_in(sweep, "run.json")
    assert [record["status"] for record in records] == ["killed"] * 2
    assert all("saved at step" in record["reason"] for record in records)
    assert [event["event"] for event in read_events(sweep)] == ["plan", "started", "started", "killed", "killed"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_exceeds_its_grace_period_is_killed_and_reported(tmp_path: Path) -> None:
    first, _ = under_way(tmp_path, "resilience.grace_seconds=1")
    sweep = only_sweep(tmp_path)
    [stuck, other] = [record["pid"] for record in jobs_in(sweep, "run.json")]
    os.kill(stuck, signal.SIGSTOP)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(60).returncode == 143
    assert living([stuck, other]) == []
    reasons = [record["reason"] for record in jobs_in(sweep, "run.json")]
    assert reasons[0] == "killed by SIGKILL: it did not exit within 1 s after SIGTERM (resilience.grace_seconds)"
    assert "saved at step" in reasons[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_jobs_of_several_processes_run_side_by_side(tmp_path: Path) -> None:
    done = run_cli(
        "train", "-m", *SMALL, *LOCAL, *SEEN, "trainer=ddp_sim", "seed=1,2,3", "test=false", logs=tmp_path / "logs"
    )
    assert done.returncode == 0, done.stderr
    sweep = only_sweep(tmp_path)
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1", "2"]
    assert [(record["ranks"], record["status"], record["seed"]) for record in jobs_in(sweep, "run.json")] == [
        (2, "done", seed) for seed in (1, 2, 3)
    ]
    assert [place["trace"] for place in jobs_in(sweep, "slot.json")] == [None] * 3
    assert processes_with(str(tmp_path)) == []


def test_devices_are_divided_evenly_and_requested_devices_must_exist() -> None:
    def shares(there: int, cores: int, **asked: Any) -> list[tuple[tuple[str, ...] | None, tuple[int, ...]]]:
        found = [f"{number}" for number in range(there)], list(range(cores))
        return [(place.gpus, place.cores) for place in allocate_slots(**asked, available=found)]

    assert shares(0, 8, slots=2) == [(None, (0, 1, 2, 3)), (None, (4, 5, 6, 7))]
    assert shares(0, 5, slots=2) == [(None, (0, 1)), (None, (2, 3))], "equal ones, so that results do not differ"
    assert shares(0, 2, slots=3) == [(None, (0,)), (None, (1,)), (None, (0,))]
    assert shares(2, 4) == [(("0",), (0, 1)), (("1",), (2, 3))], "a slot a GPU"
    assert shares(4, 4, gpus=2) == [(("0", "1"), (0, 1)), (("2", "3"), (2, 3))]
    assert [gpus for gpus, _ in shares(2, 3, slots=3)] == [("0",), ("1",), ("0",)]
    assert shares(2, 4, gpus=0, slots=1, cpus=0) == [((), ())], "hidden, and bound to nothing"
    assert [len(shares(0, cores)) for cores in (1, 2, 3, 16)] == [1, 2, 2, 8]
    with pytest.raises(ConfigError) as refused:
        shares(3, 8, slots=2, gpus=2, cpus=5)
    assert refused.value.findings == [
        "hydra.launcher.gpus=2: 2 slots need 4, but this process sees 3. Set hydra.launcher.slots=1.",
        "hydra.launcher.cpus=5: 2 slots need 10, but this process sees 8. Set hydra.launcher.slots=1.",
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"slots": 0}, "hydra.launcher.slots=0: is not null or an integer of at least 1."),
        ({"slots": "two"}, "hydra.launcher.slots=two: is not null or an integer of at least 1."),
        ({"cpus": True}, "hydra.launcher.cpus=true: is not null or an integer of at least 0."),
        ({"gpus": -1}, "hydra.launcher.gpus=-1: is not null or an integer of at least 0."),
    ],
)
def test_an_invalid_slot_number_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        allocate_slots(**asked, available=(["0"], [0]))


def test_cuda_visible_devices_is_read_as_cuda_reads_it() -> None:
    assert visible_gpus({VISIBLE_GPUS: "3, GPU-ab"}) == ["3", "GPU-ab"]
    assert visible_gpus({VISIBLE_GPUS: "1,-1,2"}) == ["1"]
    assert visible_gpus({VISIBLE_GPUS: ""}) == []


def test_an_unknown_launcher_or_sweeper_key_is_refused_in_one_line(tmp_path: Path) -> None:
    keys = ["hydra/launcher=local", "+hydra.launcher.slot=2", "+hydra.sweeper.foo=1", "seed=1,2"]
    done = start(tmp_path, ["-m", *keys])
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "error: hydra.launcher.slot: LocalLauncher takes no such argument. Did you mean 'slots'?",
            "error: hydra.sweeper.foo: GridSweeper takes no such argument. It takes max_batch_size, params",
        ],
    )
