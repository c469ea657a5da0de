"""Test that a signal stops runs, workers, ranks and sweeps at a saved step."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fulgurite.core.errors import Diverged, Interrupted, find_interrupt
from fulgurite.exact_resume.proof.diff import diff_runs
from tests.fulgurite.exact_resume.test_exact_resume import DATA, EPOCH, HARD
from tests.fulgurite.exact_resume.test_exact_resume import SMALL as TESTED
from tests.support.cli import WarmProcess, read_json, run_warm_proof
from tests.support.shapes.recorder import RECORD
from tests.support.shapes.runs import compare
from tests.support.shapes.shape import Shape, use
from tests.support.signals import command, record_of, step_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

# saves between epochs only: what is saved amid one, the signal saved
SPARSE = "callbacks.last_checkpoint.every_n_train_steps=null"
PROBE = (
    "+callbacks.probe._target_=fulgurite.exact_resume.proof.probe.Probe",
    "+callbacks.probe.folder=${paths.output_dir}/probe",
)
SMALL = (*TESTED, "test=false")
ADVICE = "; to resume, run the same command with resume=auto"


def straight_run(folder: Path, words: Sequence[str]) -> Path:
    """Make a run without a signal and return its folder."""
    assert run_warm_proof([*words, *PROBE, f"hydra.run.dir={folder}"], folder.with_name("straight.log")) == 0
    return folder


def stopped(folder: Path, words: Sequence[str], send: str) -> Path:
    """Stop a run with a signal and return its folder."""
    end = command(*words, *PROBE, folder=folder, send=send)
    assert (end.code, end.left) == (143, []), end.said
    return folder


def gone_on(folder: Path) -> Path:
    """Resume a run and return its folder."""
    assert run_warm_proof([f"resume={folder}", "callbacks.send=null"], folder.with_name("resumed.log")) == 0
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the small run without a signal."""
    return straight_run(tmp_path_factory.mktemp("straight") / "run", [*SMALL, SPARSE])


def test_sigterm_amid_an_epoch_finishes_the_step_and_saves_it(tmp_path: Path) -> None:
    end = command(*SMALL, SPARSE, folder=tmp_path, send="at: 8")
    assert (end.code, end.left) == (143, []), end.said
    assert record_of(tmp_path) == ("killed", "terminated (SIGTERM), saved at step 8 in checkpoints/last.ckpt", 143)
    assert step_of(tmp_path) == 8
    assert f"terminated (SIGTERM), saved at step 8 in checkpoints/last.ckpt{ADVICE}" in end.said
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(EPOCH - 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "more"), [("SIGINT", 130, ()), ("SIGUSR1", 143, ("resilience.async_checkpoints=true",))]
)
def test_the_other_signals_do_the_same_with_their_exit_codes(
    name: str, code: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    end = command(*SMALL, SPARSE, *more, folder=tmp_path, send=f"name: {name}, at: 7")
    assert (end.code, end.left) == (code, []), end.said
    what = "interrupted" if name == "SIGINT" else "terminated"
    assert record_of(tmp_path) == ("killed", f"{what} ({name}), saved at step 7 in checkpoints/last.ckpt", code)
    assert step_of(tmp_path) == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "step"),
    [
        ("at: 8", 8),
        (f"at: {2 * EPOCH}", 2 * EPOCH),
        (f"at: {2 * EPOCH}, place: validation, sleep: 0.5", 2 * EPOCH),
    ],
    ids=["mid", "last step of an epoch", "validation"],
)
def test_a_stopped_run_that_goes_on_ends_as_if_it_had_not_been(
    send: str, step: int, straight: Path, tmp_path: Path
) -> None:
    run = stopped(tmp_path / "run", [*SMALL, SPARSE], send)
    assert step_of(run) == step
    assert diff_runs(straight, gone_on(run)) == {}


@pytest.mark.slow
def test_a_signal_in_the_last_validation_lets_training_end_and_leaves_out_the_test(tmp_path: Path) -> None:
    words, send = [*SMALL, SPARSE, *PROBE], f"at: {3 * EPOCH}, place: validation"
    straight, tmp_path = tmp_path / "straight", tmp_path / "stopped"
    end = command(*words, folder=straight, send=f"{send}, name: SIGCONT")  # which does nothing
    assert end.code == 0, end.said
    end = command(*words, "test=true", folder=tmp_path, send=send)
    assert end.code == 143, end.said
    saved = f"saved at step {3 * EPOCH} in checkpoints/last.ckpt"
    assert record_of(tmp_path) == ("killed", f"terminated (SIGTERM), {saved}", 143)
    assert diff_runs(straight, tmp_path) == {}


@pytest.mark.slow
def test_a_signal_to_the_whole_group_leaves_the_workers_be_and_no_gradient_is_lost(tmp_path: Path) -> None:
    words = [*HARD, DATA.format(2, "true"), SPARSE]
    straight = straight_run(tmp_path / "straight", words)
    # after the first batch of an accumulation of four: the step is finished with three more from the workers
    run = stopped(tmp_path / "run", words, "at: 5, to: group, sleep: 0.2")
    assert step_of(run) == 5
    assert diff_runs(straight, gone_on(run)) == {}


@pytest.mark.slow
def test_ctrl_c_reaches_workers_too_and_the_run_is_saved(tmp_path: Path) -> None:
    words = (*HARD, DATA.format(2, "false"), SPARSE)
    end = command(*words, folder=tmp_path, send="name: SIGINT, at: 5, to: group, sleep: 0.2")
    assert (end.code, end.left) == (130, []), end.said
    assert record_of(tmp_path)[1] == "interrupted (SIGINT), saved at step 5 in checkpoints/last.ckpt"


@pytest.mark.slow
def test_a_model_with_on_train_batch_end_is_saved_at_the_step_of_the_signal_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape("teacher", "signals", model=use("training.Teacher"), save_every=1000)
    straight, run = tmp_path / "straight", tmp_path / "killed"

    def trained(name: str, *words: str) -> int:
        env = {RECORD: str(tmp_path / f"{name}.jsonl")}
        return WarmProcess("train", words, tmp_path / f"output of {name}", env=env).wait().returncode

    assert trained("straight", *shape.arguments(), f"hydra.run.dir={straight}") == 0
    monkeypatch.setenv(RECORD, str(tmp_path / "killed.jsonl"))
    end = command(*shape.arguments(), folder=run, send="at: 10")
    assert (end.code, end.left) == (143, []), end.said
    saved = "terminated (SIGTERM), saved at step 10 in checkpoints/last.ckpt"
    assert record_of(run) == ("killed", saved, 143)
    assert f"{saved}{ADVICE}" in end.said
    assert trained("resumed", f"resume={run}", "callbacks.send=null") == 0
    assert compare(straight, run, tmp_path) == {}


@pytest.mark.slow
def test_a_signal_outside_training_stops_the_run_at_once(tmp_path: Path) -> None:
    early = command(*SMALL, folder=tmp_path / "setup", send="place: setup")
    assert (early.code, early.left) == (143, []), early.said
    assert record_of(tmp_path / "setup") == ("killed", "terminated (SIGTERM)", 143)
    assert "resume=auto" not in early.said  # there is no checkpoint
    late = command(*SMALL, "test=true", folder=tmp_path / "test", send="place: test, sleep: 600")
    assert (late.code, late.left) == (143, []), late.said
    last = f"saved at step {3 * EPOCH} in checkpoints/last.ckpt"
    assert record_of(tmp_path / "test") == ("killed", f"terminated (SIGTERM), {last}", 143)
    assert "val/acc" in read_json(tmp_path / "test/results.json")["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "words", "told"),
    [
        ("sleep: 1.2, again: true", (), ""),
        ("sleep: 600", ("resilience.grace_seconds=1",), "not saved within 1 s (resilience.grace_seconds); "),
    ],
    ids=["second signal", "end of the grace"],
)
def test_a_validation_without_end_does_not_keep_a_run_alive(
    send: str, words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    end = command(*SMALL, SPARSE, *words, folder=tmp_path, send=f"place: validation, at: {2 * EPOCH}, {send}")
    assert (end.code, end.left) == (143, []), end.said
    reason = f"terminated (SIGTERM), {told}last saved at step {EPOCH} in checkpoints/last.ckpt"
    assert record_of(tmp_path) == ("killed", reason, 143)


@pytest.mark.slow
def test_a_run_without_a_last_checkpoint_says_that_nothing_is_saved(tmp_path: Path) -> None:
    words = [word for word in SMALL if "last_checkpoint" not in word]
    end = command(*words, "~callbacks.last_checkpoint", folder=tmp_path, send="at: 8")
    assert end.code == 143, end.said
    assert "nothing saved: the run has no callbacks.last_checkpoint" in str(record_of(tmp_path)[1])


DDP = ("trainer=ddp_sim", "data.batch_size=32", *(word for word in SMALL if "exact" not in word), SPARSE)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "to"), [(0, "self"), (1, "self"), (0, "group")])
def test_ranks_stop_at_the_same_step_whichever_of_them_the_signal_reaches(rank: int, to: str, tmp_path: Path) -> None:
    end = command(*DDP, "trainer.max_epochs=1000", folder=tmp_path, send=f"rank: {rank}, to: {to}, at: 8")
    assert (end.code, end.left) == (143, []), end.said
    status, reason, code = record_of(tmp_path)
    assert (status, code) == ("killed", 143)
    step = step_of(tmp_path)
    assert reason == f"terminated (SIGTERM), saved at step {step} in checkpoints/last.ckpt"
    assert step >= 8
    assert "Traceback" not in end.said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "rank", "to"), [("setup", 0, "self"), ("setup", 1, "self"), ("test", 1, "self"), ("test", 0, "group")]
)
def test_ranks_that_do_not_train_end_with_the_first_one(place: str, rank: int, to: str, tmp_path: Path) -> None:
    words = [*DDP, "trainer.max_epochs=1", "test=true"]
    end = command(*words, folder=tmp_path, send=f"name: SIGINT, rank: {rank}, to: {to}, place: {place}, sleep: 1")
    assert (end.code, end.left) == (130, []), end.said
    assert record_of(tmp_path)[0] == "killed"


@pytest.mark.slow
def test_spawned_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    words = [*DDP, "trainer=ddp_spawn"]
    end = command(*words, folder=tmp_path, send="at: 8, to: parent, sleep: 5")
    assert (end.code, end.left) == (143, []), end.said
    assert record_of(tmp_path) == ("killed", "terminated (SIGTERM)", 143)


@pytest.mark.slow
def test_a_signal_ends_the_job_and_the_sweep(tmp_path: Path) -> None:
    send = ("+callbacks.send._target_=tests.support.signals.SendSignal", "+callbacks.send.at=1000,8,9")
    end = command("-m", *SMALL, SPARSE, f"paths.log_dir={tmp_path}", *send)
    assert (end.code, end.left) == (143, []), end.said
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    assert record_of(sweep / "0")[0] == "done"
    assert record_of(sweep / "1") == ("killed", "terminated (SIGTERM), saved at step 8 in checkpoints/last.ckpt", 143)
    assert not (sweep / "2").exists()
    assert "sweep stopped by SIGTERM: 1 job done, job 1 killed, 1 not started" in end.said
    with (sweep / "summary.csv").open(newline="") as file:
        counts = [(row["jobs"], row["failed"], row["killed"]) for row in csv.DictReader(file)]
    assert counts == [("1", "0", "0"), ("1", "0", "1")]


def test_a_stop_is_found_behind_an_error_of_closing_down() -> None:
    try:
        try:
            raise Interrupted("SIGINT", "saved at step 3")
        finally:
            raise Diverged("while closing")
    except Diverged as error:
        stop = find_interrupt(error)
    assert stop is not None
    assert (str(stop), stop.exit_code) == ("interrupted (SIGINT), saved at step 3", 130)
    assert find_interrupt(Diverged("alone")) is None
