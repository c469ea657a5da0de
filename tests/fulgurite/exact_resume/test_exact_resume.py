"""A run that is killed and resumed from its last checkpoint ends bit-identical to an uninterrupted one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.errors import UserError
from fulgurite.exact_resume.loader import ExactLoader, ShardSpec
from fulgurite.exact_resume.make_exact import make_exact
from fulgurite.exact_resume.order.epoch import EpochSampler, SeededBatchSampler
from fulgurite.exact_resume.order.rng import PROBE_BATCHES, ScopedRng, restore_rng_states, rng_states
from fulgurite.exact_resume.order.sharding import BatchSharding
from fulgurite.exact_resume.process.numerics import describe_changes
from fulgurite.exact_resume.proof.cli import KILL_POINTS, Proof, find_steps, main, prove
from fulgurite.exact_resume.proof.process import start_process
from tests.support.cli import run_warm_proof
from tests.support.toy_task import Noisy

QUIET = (
    "extras.print_config=false",
    "callbacks.progress_bar=null",
    "callbacks.model_summary=null",
    "trainer.enable_progress_bar=false",
)
EPOCH = 6  # optimizer steps of the small run's epochs
SMALL = (
    *QUIET,
    "trainer.max_epochs=3",
    f"+trainer.limit_train_batches={EPOCH}",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
)
HARD = (
    *QUIET,
    "test=false",
    "~data",
    "~model",
    "+model={_target_: tests.support.toy_task.OrdinaryModel}",
    "extras.allowed_targets=[tests]",
    "~callbacks.model_checkpoint",
    "~callbacks.early_stopping",
    "trainer.max_epochs=4",
    "+trainer.accumulate_grad_batches=4",  # 13 batches an epoch: 4 steps
)
DATA = "+data={{_target_: tests.support.toy_task.OrdinaryData, num_workers: {}, persistent: {}}}"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Proof]]:
    """Return the folder and the proofs of the small run, killed amid its second epoch."""
    folder = tmp_path_factory.mktemp("small")
    # the best so far never falls: its lowest is the first, so no best checkpoint is saved after the kill
    first = ("callbacks.model_checkpoint.monitor=val/acc_best", "callbacks.model_checkpoint.mode=min")
    return folder, prove([*SMALL, *first], folder, kill_at=["middle"], start=run_warm_proof)


def test_the_default_run_killed_amid_an_epoch_ends_as_if_it_had_not_been(small: tuple[Path, list[Proof]]) -> None:
    assert small[1][0] == Proof("middle", EPOCH + 3, EPOCH + 2, {})


def test_without_exact_resume_the_comparison_finds_other_batches_and_other_weights(
    small: tuple[Path, list[Proof]],
) -> None:
    control = small[1][-1]
    assert (control.kill_point, control.resumed_step) == ("control", EPOCH + 2)
    assert {"batches", "weights", "optimizer", "metrics.csv", "results.json"} <= control.differences.keys()
    assert control.differences["batches"].endswith("other examples")
    assert control.differences["weights"].startswith("state_dict.net.")


def test_a_run_that_was_killed_after_its_training_is_scored_as_if_it_had_not_been(
    small: tuple[Path, list[Proof]],
) -> None:
    reference = small[0] / "reference"
    results, rows = ((reference / name).read_bytes() for name in ("results.json", "metrics.csv"))
    batches = (reference / "probe" / "batches-0.jsonl").read_bytes()
    (reference / "results.json").unlink()
    assert run_warm_proof([f"resume={reference}"], small[0] / "scored.log") == 0
    assert (reference / "probe" / "batches-0.jsonl").read_bytes() == batches, "a step was made"
    assert (reference / "results.json").read_bytes() == results
    assert len((reference / "metrics.csv").read_bytes().splitlines()) == len(rows.splitlines())


def test_a_run_that_had_stopped_early_trains_no_further_unless_it_is_asked_for_more(tmp_path: Path) -> None:
    early = ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9"]
    run = tmp_path / "run"
    assert run_warm_proof([*SMALL, *early, "trainer.max_epochs=9", f"hydra.run.dir={run}"], tmp_path / "first.log") == 0
    results = (run / "results.json").read_bytes()
    assert b'"test/acc"' in results
    assert run_warm_proof([f"resume={run}"], tmp_path / "again.log") == 0
    assert (run / "results.json").read_bytes() == results
    assert "stopped early, before trainer.max_epochs=9. Raise it" in (run / "train.log").read_text()
    step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert run_warm_proof([f"resume={run}", "trainer.max_epochs=10"], tmp_path / "more.log") == 0
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step + EPOCH


@pytest.mark.slow
def test_saves_far_apart_repeat_the_steps_in_between_bit_by_bit(tmp_path: Path) -> None:
    words = [*SMALL, "callbacks.last_checkpoint.every_n_train_steps=4"]
    kill_at = ["2", "first", "last", "next"]
    found = prove(words, tmp_path, kill_at=kill_at, control=False, start=run_warm_proof)
    assert [proof.differences for proof in found] == [{}] * 4
    assert [proof.resumed_step for proof in found] == [None, EPOCH, EPOCH + 4, 2 * EPOCH]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["+trainer.max_steps=14", "+model.interval=step"]], ids=["epochs", "steps"])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_users_code_with_augmentation_dropout_plateau_accumulation_and_averaged_weights_resumes_exactly(
    workers: int, persistent: bool, more: list[str], tmp_path: Path
) -> None:
    words = [*HARD, "callbacks=[default,ema]", DATA.format(workers, str(persistent).lower()), *more]
    found = prove(words, tmp_path, start=run_warm_proof)
    assert [proof.kill_point for proof in found] == [*KILL_POINTS, "examples", "control"]
    assert [proof.differences for proof in found[:-1]] == [{}] * 6
    assert {"batches", "weights"} <= found[-1].differences.keys()


@pytest.mark.slow
def test_two_processes_resume_exactly_and_share_the_batches_that_one_would_see(tmp_path: Path) -> None:
    words = [*SMALL, "trainer=ddp_sim"]
    found = prove(words, tmp_path, kill_at=["first", "middle", "last", "next"], control=False)
    assert [proof.differences for proof in found] == [{}] * 4
    ranks = [(tmp_path / "reference" / "probe" / f"batches-{rank}.jsonl").read_text() for rank in (0, 1)]
    assert [len(rows.splitlines()) for rows in ranks] == [3 * EPOCH] * 2
    assert ranks[0] != ranks[1]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_processes_resume_exactly(tmp_path: Path) -> None:
    # of two ranks a sum is the same in any order, of three it is not
    words = [*SMALL, "trainer=ddp_sim", "trainer.devices=3", "data.batch_size=63", "trainer.max_epochs=2"]
    found = prove(words, tmp_path, kill_at=["middle", "next"], control=False)
    assert [proof.differences for proof in found] == [{}] * 2


@pytest.mark.slow
def test_another_number_of_processes_amid_an_epoch_is_refused_in_one_line(tmp_path: Path) -> None:
    words = [*SMALL, "callbacks.last_checkpoint.every_n_train_steps=1", "test=false"]
    probe = [
        "+callbacks.probe={_target_: fulgurite.exact_resume.proof.probe.Probe, folder: '"
        + str(tmp_path)
        + "', kill_at: 9}"
    ]
    assert start_process([*words, *probe, f"hydra.run.dir={tmp_path}/run"], tmp_path / "killed.log") == -9
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    said = tmp_path / "other.log"
    assert start_process([*words, checkpoint, "trainer=ddp_sim", f"hydra.run.dir={tmp_path}/other"], said) == 2
    assert "trainer.devices=2: the checkpoint was saved amid an epoch with 1." in said.read_text()


@pytest.mark.slow
def test_the_command_ends_with_1_and_names_what_differs_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "resilience.exact_resume=false", "--kill-at=9", "--no-control", f"--folder={tmp_path}/proof"]
    words += ["--json", str(tmp_path / "proof.json")]
    assert main(words, run_warm_proof) == 1
    table = " ".join(capsys.readouterr().out.split())
    assert "resumed from" in table
    assert "batches: epoch 1, batch" in table
    (proof,) = json.loads((tmp_path / "proof.json").read_text())
    assert (proof["kill_point"], proof["killed_step"]) == ("9", 9)
    assert "batches" in proof["differences"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--kill-at", "soon"], "--kill-at=soon: is not a kill point. Choose from first, middle, last, next"),
        (["--kil-at=first"], "--kil-at: not an option of python -m fulgurite prove-resume"),
        (["-m", "seed=1,2"], "-m: not an option of python -m fulgurite prove-resume"),
        (["resume=last"], "resume=last: a proof trains from the beginning. Remove the override."),
        ([f"--folder={Path(__file__).parent}"], "is not an empty folder. Name a new one."),
    ],
)
def test_an_argument_that_a_proof_cannot_use_is_rejected_in_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1


def test_a_step_that_the_run_does_not_reach_is_refused_with_the_steps_it_has(
    small: tuple[Path, list[Proof]],
) -> None:
    with pytest.raises(UserError, match=r"--kill-at=99: step 99 is not one of the 18 steps in 3 epochs"):
        find_steps(small[0] / "reference", ["99"])


def test_ranks_change_their_examples_each_in_its_own_way() -> None:
    orders = [EpochSampler(SequentialSampler(range(8)), 7, BatchSharding(8, 4, rank, 2)) for rank in (0, 1)]
    (first, _), (second, _) = (next(iter(SeededBatchSampler(order))) for order in orders)
    assert first != second


def _loader(**settings: Any) -> ExactLoader:
    exact, _ = make_exact(DataLoader(Noisy(1.0), batch_size=8, **settings), ShardSpec(7, lambda: True))
    assert isinstance(exact, ExactLoader)
    return exact


def _epoch(loader: ExactLoader, epoch: int) -> list[torch.Tensor]:
    loader.order.set_epoch(epoch)
    return [examples for examples, _ in loader]


def test_order_and_augmentation_are_functions_of_seed_and_epoch_whatever_the_workers() -> None:
    alone, helped = _loader(shuffle=True), _loader(shuffle=True, num_workers=2)
    first = _epoch(alone, 3)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, _epoch(helped, 3), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, _epoch(alone, 3), strict=True))
    assert not torch.equal(first[0], _epoch(alone, 4)[0])


def test_an_epoch_has_every_example_once_and_the_rest_follows_a_restored_place() -> None:
    loader = _loader(shuffle=True)
    indices = [index for _, batch in loader.batches for index in batch]
    assert sorted(indices) == list(range(104))
    assert indices != sorted(indices)
    complete = _epoch(loader, 0)
    loader.order.set_epoch(0)
    again, rest = _loader(shuffle=True), iter(loader)
    for _ in range(5):
        next(rest)
    again.load_state_dict(loader.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(complete[5:], _epoch(again, 0), strict=True))


def test_another_batch_size_amid_an_epoch_is_refused_in_one_line() -> None:
    state = {**_loader().state_dict(), "batch_size": 16}
    with pytest.raises(UserError, match=r"batch_size=8: .* amid an epoch with 16.*exact_resume=False\)"):
        _loader().load_state_dict(state)


def test_another_number_of_processes_is_refused_for_a_sampler_of_the_user_too() -> None:
    state = {**_loader(sampler=[3, 1, 2]).state_dict(), "processes": 2}
    with pytest.raises(UserError, match=r"trainer.devices=1: .* amid an epoch with 2\."):
        _loader(sampler=[3, 1, 2]).load_state_dict(state)


class Stream(IterableDataset[int]):
    """Has an order of its own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


class UserLoader(DataLoader[Any]):
    """Could do anything."""

    def __iter__(self) -> Any:
        return iter([0])


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (DataLoader(Stream()), "iterable data set"),
        (UserLoader(Noisy(0)), "a UserLoader iterates in a way of its own"),
        ([1, 2], "int is not a DataLoader"),
    ],
)
def test_a_loader_whose_order_is_not_known_is_left_as_it_is_and_the_reason_told(loader: Any, reason: str) -> None:
    same, reasons = make_exact(loader, ShardSpec(7, lambda: True))
    assert same == loader
    assert reason in reasons[0]


def _draw(_: object = None) -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("batches", [1, PROBE_BATCHES + 1])
def test_a_batch_made_in_the_process_leaves_all_three_generators_as_they_were(batches: int) -> None:
    before, lending = rng_states(), ScopedRng()
    inside = [lending.run(5, _draw, None) for _ in range(batches)]
    assert set(inside) == {inside[0]}
    after = _draw()
    restore_rng_states(before)
    assert _draw() == after
    assert inside[0] != after


def test_a_generator_that_no_batch_draws_from_is_left_alone_and_a_resumed_run_knows() -> None:
    def torch_only(_: None) -> float:
        return float(torch.rand(()))

    lending, again = ScopedRng(), ScopedRng()
    for _ in range(PROBE_BATCHES):
        lending.run(5, torch_only, None)
    assert lending.state_dict() == {"looks": 0, "drawn": ["torch"]}
    again.load_state_dict(lending.state_dict())
    before = rng_states()
    drawn = again.run(5, _draw, None)
    restore_rng_states(before)
    assert drawn[:2] == _draw()[:2]  # the run's own streams, which a checkpoint holds
    assert drawn[2] == lending.run(5, torch_only, None)


def test_changed_numerics_settings_are_reported_with_both_values() -> None:
    saved = {"torch": "2.13.0", "threads": 1, "device": "cpu"}
    assert describe_changes(saved, saved) == []
    assert describe_changes(saved, {**saved, "threads": 4, "newer": "unknown there"}) == [
        "threads was 1 when the checkpoint was saved and is 4 now: bits may differ"
    ]


def test_keys_in_checkpoints_are_independent_of_names_in_the_code(small: tuple[Path, list[Proof]]) -> None:
    checkpoint = torch.load(small[0] / "reference/checkpoints/last.ckpt", weights_only=True)
    saved = checkpoint["callbacks"]["ExactResume"]
    assert saved.keys() == {"seed", "attributes", "switches", "ranks"}
    parts = {"loaders", "generators", "lending", "monitors", "metrics", "results", "logged", "ended", "user"}
    assert saved["ranks"][0].keys() == parts
    # ModelCheckpoint builds its key from its arguments; LastCheckpoint passes it none
    last = LastCheckpoint("folder", every_n_train_steps=7, every_n_epochs=2).state_key
    assert last in checkpoint["callbacks"]
    assert last == (
        "LastCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
        "'train_time_interval': None}"
    )
